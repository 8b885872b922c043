//! An [`OutputBuffer`] with a clock, which passes its messages on by itself.

use protocol::message::MimeBundle;
use runtime::Stream;
use tokio::time::Instant;

use super::{Output, OutputBuffer};

/// Takes a cell's output as it comes and passes it on as messages.
pub struct Gatherer {
    emit: Box<dyn FnMut(Output) + Send>,
    buffer: OutputBuffer,
}

impl std::fmt::Debug for Gatherer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gatherer").finish_non_exhaustive()
    }
}

impl Gatherer {
    /// Passes messages to `emit`.
    pub fn new(emit: impl FnMut(Output) + Send + 'static) -> Gatherer {
        Gatherer {
            emit: Box::new(emit),
            buffer: OutputBuffer::default(),
        }
    }

    fn with<T>(&mut self, change: impl FnOnce(&mut OutputBuffer, std::time::Instant) -> T) -> T {
        let changed = change(&mut self.buffer, Instant::now().into_std());
        for output in self.buffer.take() {
            (self.emit)(output);
        }
        changed
    }

    /// As [`OutputBuffer::compile_status`].
    pub fn compile_status(&mut self, activity: Option<String>) {
        self.with(|buffer, _| buffer.compile_status(activity));
    }

    /// As [`OutputBuffer::bytes`].
    pub fn bytes(&mut self, stream: Stream, bytes: &[u8]) {
        self.with(|buffer, now| buffer.bytes(now, stream, bytes));
    }

    /// As [`OutputBuffer::note`].
    pub fn note(&mut self, text: String) {
        self.with(|buffer, now| buffer.note(now, text));
    }

    /// As [`OutputBuffer::result`].
    pub fn result(&mut self, data: MimeBundle) {
        self.with(|buffer, now| buffer.result(now, data));
    }

    /// As [`OutputBuffer::display`].
    pub fn display(&mut self, data: MimeBundle) {
        self.with(|buffer, now| buffer.display(now, data));
    }

    /// When what waits is to be sent at the latest.
    pub fn deadline(&self) -> Option<std::time::Instant> {
        self.buffer.deadline()
    }

    /// Completes when what waits is to be sent; never while nothing waits.
    pub fn due(&self) -> impl Future<Output = ()> + Send + use<> {
        let deadline = self.deadline();
        async move {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        }
    }

    /// Sends what waits.
    pub fn send(&mut self) {
        self.with(OutputBuffer::flush);
    }

    /// Sends all there is. Returns the result, as [`OutputBuffer::finish`].
    pub fn finish(mut self, ends_in_expression: bool) -> Option<MimeBundle> {
        self.with(|buffer, now| buffer.finish(now, ends_in_expression))
    }
}
