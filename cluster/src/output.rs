//! What a cell writes and shows, on its way to iopub: text is gathered, displays are told from text.
//!
//! Types show themselves by printing blocks to stdout, as evcxr has it: a line `EVCXR_BEGIN_CONTENT <mime>`, the
//! content, a line `EVCXR_END_CONTENT`. Blocks that follow each other are representations of one thing as long as their
//! types differ. A block that never ends was text.
//!
//! [`OutputBuffer`] does this, without a clock.

use protocol::message::MimeBundle;
use protocol::message::iopub::{
    ClearOutput, CompileStatus, DisplayData, Stream as StreamContent, StreamName, Transient,
    UpdateDisplayData,
};
use runtime::Stream;
use serde_json::Value;
use std::time::{Duration, Instant};

const BEGIN: &str = "EVCXR_BEGIN_CONTENT ";
const END: &str = "EVCXR_END_CONTENT";

/// A block of this type clears the cell's output; its content is that of `clear_output`.
const CLEAR: &str = "application/x.chorus.clear-output+json";
/// A block of this type names the display it is part of: `{"display_id": "..", "update": false}`.
const DISPLAY: &str = "application/x.chorus.display+json";

/// How long text may wait for more.
const GATHER: Duration = Duration::from_millis(50);
/// How long the first text in that time may wait: one `eprintln!` is several writes.
const FIRST: Duration = Duration::from_millis(5);
/// Text that is longer than this, in bytes, does not wait.
const ENOUGH: usize = 1 << 20;

/// Something for iopub.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    Stream(StreamContent),
    Display(DisplayData),
    Update(UpdateDisplayData),
    Clear(ClearOutput),
    CompileStatus(CompileStatus),
}

/// Turns a snippet's output into messages. Has no clock: `now` is the caller's. Messages collect until [`OutputBuffer::take`].
#[derive(Debug, Default)]
pub struct OutputBuffer {
    messages: Vec<Output>,
    stdout: Text,
    stderr: Text,
    blocks: Blocks,
    waiting: Vec<(StreamName, String)>,
    waiting_bytes: usize,
    last_sent: Option<Instant>,
    /// When what waits is to be sent at the latest.
    due: Option<Instant>,
    /// Representations of the thing that was shown last, until something else comes.
    shown: MimeBundle,
    result: Option<MimeBundle>,
    /// What was told last of what is waited for.
    activity: Option<String>,
}

impl OutputBuffer {
    /// Removes and returns the messages that are to be sent now.
    pub fn take(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.messages)
    }

    /// Tells what is waited for; `None` for nothing. Everything else that is told ends it, too.
    pub fn compile_status(&mut self, activity: Option<String>) {
        if self.activity != activity {
            self.activity.clone_from(&activity);
            self.messages
                .push(Output::CompileStatus(CompileStatus { activity }));
        }
    }

    fn emit(&mut self, output: Output) {
        self.compile_status(None);
        self.messages.push(output);
    }

    /// Adds bytes as they were read.
    pub fn bytes(&mut self, now: Instant, stream: Stream, bytes: &[u8]) {
        match stream {
            Stream::Stdout => {
                let text = self.stdout.decode(bytes);
                let parts = self.blocks.split(&text);
                self.parts(now, parts);
            }
            Stream::Stderr => {
                let text = self.stderr.decode(bytes);
                self.text(now, StreamName::Stderr, text);
            }
        }
        if self.waiting_bytes >= ENOUGH {
            self.send_text(now);
        }
    }

    /// Adds text that the kernel or the engine itself has to say.
    pub fn note(&mut self, now: Instant, text: String) {
        self.text(now, StreamName::Stderr, text);
    }

    fn parts(&mut self, now: Instant, parts: Vec<Part>) {
        for part in parts {
            match part {
                Part::Text(text) => self.text(now, StreamName::Stdout, text),
                Part::Block { mime, content } => self.block(now, mime, content),
            }
        }
    }

    fn text(&mut self, now: Instant, name: StreamName, text: String) {
        if text.is_empty() {
            return;
        }
        self.send_shown(now);
        self.waiting_bytes += text.len();
        match self.waiting.last_mut() {
            Some((last, waiting)) if *last == name => waiting.push_str(&text),
            _ => self.waiting.push((name, text)),
        }
        self.set_due(now);
    }

    fn block(&mut self, now: Instant, mime: String, content: String) {
        if mime == CLEAR {
            self.send_shown(now);
            self.send_text(now);
            let clear = serde_json::from_str(&content).unwrap_or_default();
            self.emit(Output::Clear(clear));
            return;
        }
        if self.shown.contains_key(&mime) {
            self.send_shown(now);
        }
        let json = mime == "application/json" || mime.ends_with("+json");
        let value = match serde_json::from_str(&content) {
            Ok(value) if json => value,
            _ => Value::String(content),
        };
        self.shown.insert(mime, value);
        // It may be one of several representations, and it may be the cell's result.
        self.due = None;
        self.set_due(now);
    }

    /// Sets the snippet's result. Should there be two, the first was shown by the snippet itself.
    pub fn result(&mut self, now: Instant, data: MimeBundle) {
        if let Some(earlier) = self.result.replace(data) {
            self.display(now, earlier);
        }
    }

    /// Shows something.
    pub fn display(&mut self, now: Instant, data: MimeBundle) {
        self.send_shown(now);
        self.shown = data;
        self.send_shown(now);
    }

    /// When [`OutputBuffer::flush`] is to be called at the latest; `None` while nothing waits.
    pub fn deadline(&self) -> Option<Instant> {
        self.due
    }

    fn set_due(&mut self, now: Instant) {
        let earliest = self.last_sent.map_or(now, |last| last + GATHER);
        self.due.get_or_insert(earliest.max(now + FIRST));
    }

    /// Makes messages of what waits.
    pub fn flush(&mut self, now: Instant) {
        self.send_text(now);
        self.send_shown(now);
    }

    fn send_text(&mut self, now: Instant) {
        if self.shown.is_empty() {
            self.due = None;
        }
        if self.waiting.is_empty() {
            return;
        }
        for (name, text) in std::mem::take(&mut self.waiting) {
            self.emit(Output::Stream(StreamContent { name, text }));
        }
        self.waiting_bytes = 0;
        self.last_sent = Some(now);
    }

    fn send_shown(&mut self, now: Instant) {
        if self.shown.is_empty() {
            return;
        }
        let mut data = std::mem::take(&mut self.shown);
        self.send_text(now);
        self.last_sent = Some(now);
        let named = data.remove(DISPLAY);
        let transient = named
            .as_ref()
            .and_then(|named| named["display_id"].as_str())
            .map(Transient::named)
            .unwrap_or_default();
        let update = named.is_some_and(|named| named["update"] == true);
        self.emit(if update {
            Output::Update(UpdateDisplayData {
                data,
                transient,
                ..UpdateDisplayData::default()
            })
        } else {
            Output::Display(DisplayData {
                data,
                transient,
                ..DisplayData::default()
            })
        });
    }

    /// Makes messages of all there is. Returns the result, which is what was shown last if the snippet ends in an expression.
    pub fn finish(&mut self, now: Instant, ends_in_expression: bool) -> Option<MimeBundle> {
        let rest = self.blocks.finish();
        self.parts(now, rest);
        let (stdout, stderr) = (self.stdout.finish(), self.stderr.finish());
        self.text(now, StreamName::Stdout, stdout);
        self.text(now, StreamName::Stderr, stderr);
        if self.result.is_none()
            && ends_in_expression
            && !self.shown.is_empty()
            && !self.shown.contains_key(DISPLAY)
        {
            self.result = Some(std::mem::take(&mut self.shown));
        }
        self.send_shown(now);
        self.send_text(now);
        self.compile_status(None);
        self.result.take()
    }
}

/// A bundle of plain text.
pub fn text_bundle(text: impl Into<String>) -> MimeBundle {
    MimeBundle::from_iter([("text/plain".to_owned(), Value::String(text.into()))])
}

/// Bytes to text: a character that was cut waits for its rest, and what is no UTF-8 is shown as such.
#[derive(Debug, Default)]
struct Text {
    cut: Vec<u8>,
}

impl Text {
    fn decode(&mut self, bytes: &[u8]) -> String {
        let mut all = std::mem::take(&mut self.cut);
        all.extend_from_slice(bytes);
        let mut text = String::with_capacity(all.len());
        let mut rest = all.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    return text;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    match error.error_len() {
                        Some(length) => {
                            text.push(char::REPLACEMENT_CHARACTER);
                            rest = after.get(length..).unwrap_or_default();
                        }
                        None => {
                            self.cut = after.to_vec();
                            return text;
                        }
                    }
                }
            }
        }
    }

    fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.cut)).into_owned()
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Block { mime: String, content: String },
}

/// Tells blocks from text.
#[derive(Debug, Default)]
struct Blocks {
    /// Text of the current line that may yet become a marker, or all of the block so far, markers included.
    held: String,
    in_block: bool,
    /// Whether the next character is the first of its line.
    within_line: bool,
    /// How much of `held` has been searched for the end of the block.
    searched: usize,
}

impl Blocks {
    fn split(&mut self, text: &str) -> Vec<Part> {
        let mut parts = Vec::new();
        let mut rest = std::mem::take(&mut self.held);
        rest.push_str(text);
        loop {
            if self.in_block {
                match self.block(&mut rest) {
                    Some(part) => parts.push(part),
                    None => {
                        self.held = rest;
                        return parts;
                    }
                }
                continue;
            }
            match self.begin(&rest) {
                Begin::At(at) => {
                    push_text(&mut parts, &rest[..at]);
                    rest.drain(..at);
                    self.in_block = true;
                    self.searched = 0;
                }
                Begin::Perhaps(at) => {
                    push_text(&mut parts, &rest[..at]);
                    self.within_line = false;
                    self.held = rest.split_off(at);
                    return parts;
                }
                Begin::No => {
                    if let Some(last) = rest.chars().last() {
                        self.within_line = last != '\n';
                    }
                    push_text(&mut parts, &rest);
                    return parts;
                }
            }
        }
    }

    /// Where the next line begins that begins a block.
    fn begin(&self, text: &str) -> Begin {
        let mut line_start = if self.within_line {
            match text.find('\n') {
                Some(end) => end + 1,
                None => return Begin::No,
            }
        } else {
            0
        };
        loop {
            let line = &text[line_start..];
            if line.is_empty() {
                return Begin::No;
            }
            if line.starts_with(BEGIN) {
                return if line.contains('\n') {
                    Begin::At(line_start)
                } else {
                    Begin::Perhaps(line_start)
                };
            }
            if BEGIN.starts_with(line) {
                return Begin::Perhaps(line_start);
            }
            match line.find('\n') {
                Some(end) => line_start += end + 1,
                None => return Begin::No,
            }
        }
    }

    /// The block that `text` begins with, taken out of it, once it is whole.
    fn block(&mut self, text: &mut String) -> Option<Part> {
        let first = text.find('\n')? + 1;
        let mut from = self.searched.max(first);
        loop {
            let line = &text[from..];
            match line.find('\n') {
                Some(end) if line[..end].trim_end_matches('\r') == END => {
                    let mime = text[BEGIN.len()..first].trim().to_owned();
                    let content = text[first..from].trim_end_matches('\n').to_owned();
                    text.drain(..from + end + 1);
                    self.in_block = false;
                    self.within_line = false;
                    return Some(Part::Block { mime, content });
                }
                Some(end) => from += end + 1,
                None => {
                    self.searched = from;
                    return None;
                }
            }
        }
    }

    /// What was held back was text after all.
    fn finish(&mut self) -> Vec<Part> {
        self.in_block = false;
        let mut parts = Vec::new();
        push_text(&mut parts, &std::mem::take(&mut self.held));
        parts
    }
}

enum Begin {
    /// A block begins at this byte.
    At(usize),
    /// From this byte on it may be a block's beginning, when more comes.
    Perhaps(usize),
    No,
}

fn push_text(parts: &mut Vec<Part>, text: &str) {
    if !text.is_empty() {
        parts.push(Part::Text(text.to_owned()));
    }
}

#[cfg(test)]
mod tests;
