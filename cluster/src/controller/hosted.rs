//! A controller in a thread of this process, for whoever is its first client: what both say to each other goes from memory to memory, and no
//! process has to be started.

use std::io;
use std::sync::mpsc;
use std::thread;

use protocol::Sockets;
use tokio::sync::{oneshot, watch};

use super::{Config, Open};
use crate::Error;

/// A controller in a thread of this process. It ends when this is dropped.
#[derive(Debug)]
pub struct Hosted {
    sockets: Sockets,
    /// Whether it is over; closed when nothing is left to do.
    ended: watch::Receiver<bool>,
    /// Dropped to stop it.
    stop: Option<oneshot::Sender<()>>,
}

/// Calls something when it is dropped: a thread's end, even if it panics.
struct AtEnd<F: FnMut()>(F);

impl<F: FnMut()> Drop for AtEnd<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

impl Hosted {
    /// Opens the sockets, writes the connection files, and serves in a new thread. `at_end` is called when that ends, whyever.
    ///
    /// # Errors
    /// When the sockets cannot be opened, the files not written, or the thread not started.
    pub fn start(config: Config, mut at_end: impl FnMut() + Send + 'static) -> Result<Self, Error> {
        let (told, started) = mpsc::sync_channel(1);
        let (stop, stopped) = oneshot::channel::<()>();
        let (alive, ended) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::system("start"))?;
        let serve = move || {
            let _at_end = AtEnd(|| {
                alive.send_replace(true);
                at_end();
            });
            let stop = async move {
                // Nobody says anything: it is dropped.
                let _ = stopped.await;
            };
            let tell = |sockets: &Sockets| {
                // Who started this waits for it.
                let _ = told.send(Ok(sockets.clone()));
            };
            let served =
                Open::new(config).and_then(|open| runtime.block_on(open.serve_with(tell, stop)));
            if let Err(error) = served
                && let Err(mpsc::SendError(Err(error))) = told.send(Err(error))
            {
                tracing::error!("the controller ended: {}", error.chain());
            }
            runtime.shutdown_background();
        };
        thread::Builder::new()
            .name("controller".to_owned())
            .spawn(serve)
            .map_err(Error::system("start a thread"))?;
        let panicked = |_| Error::system("start the controller")(io::Error::other("it panicked"));
        let sockets = started.recv().map_err(panicked)??;
        Ok(Self {
            sockets,
            ended,
            stop: Some(stop),
        })
    }

    /// The controller's sockets, for visits ([`Sockets::visit`]).
    pub fn sockets(&self) -> &Sockets {
        &self.sockets
    }

    /// Whether it has ended, but perhaps for what is done at the end.
    pub fn is_over(&self) -> bool {
        *self.ended.borrow()
    }

    /// Tells it to end.
    pub fn stop(&mut self) {
        self.stop = None;
    }

    /// Resolves when it has ended, whyever, and what is done at the end is done.
    pub async fn ended(&mut self) {
        while self.ended.changed().await.is_ok() {}
    }
}
