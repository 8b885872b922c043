//! What engines say, merged into what a notebook shows, laid out as ipyparallel 9 does.
//!
//! Live, text is a display an engine and stream (`[stdout:3] ..`), which grows in place; rich displays follow a label (`[output:3]`) as
//! they come; results (`Out[3:7]: ..`) come in the order of the targets, each as soon as the engines before it have ended.
//! Otherwise all is laid out when all have ended. Errors are one [`Failure`] at the end. So the order in which engines end changes
//! nothing but the moment at which live text appears.

mod composite;
mod grouped;
mod progress;

use serde_json::{Map, Value};

use crate::event::{EngineEvent, EngineId, Failure, MimeBundle, Shown, StreamName, plain, text_of};
use crate::options::Grouping;
use crate::targets::Targets;

pub use progress::{compile_line, progress_line};

/// After so many bytes live text goes on in a new display, because each update sends the whole display again.
const LIVE_BLOCK: usize = 16 << 10;

/// Of a result that is bound to a variable, no more characters than these are shown.
const BRIEF: usize = 400;

/// How outputs are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Show while engines run.
    pub live: bool,
    /// The layout when not live, and of `%pxresult`.
    pub grouping: Grouping,
}

/// The merged output of one run of a snippet on some engines.
#[derive(Debug)]
pub struct Merger {
    layout: Layout,
    /// Begins the `display_id` of every live display.
    run: String,
    /// Without labels, as ipyparallel shows the output of `-t 1`.
    single: bool,
    /// In the order of the targets.
    voices: Vec<Voice>,
    /// How many voices' results have been shown live.
    released: usize,
    /// Results have a name, so long ones need not be shown whole.
    brief: bool,
}

/// What one engine has said.
#[derive(Debug)]
struct Voice {
    id: EngineId,
    stdout: Text,
    stderr: Text,
    displays: Vec<Display>,
    result: Option<Outcome>,
    end: Option<End>,
    /// What the compiler is doing for it, while it waits for that.
    activity: Option<String>,
}

/// A stream's text, and the display in which its end is shown live.
#[derive(Debug, Default)]
struct Text {
    all: String,
    /// Where the current display's text begins.
    block_start: usize,
    blocks: usize,
}

#[derive(Clone, Debug)]
struct Display {
    data: MimeBundle,
    metadata: Map<String, Value>,
    display_id: Option<String>,
}

/// The value of an engine's last expression.
#[derive(Clone, Debug)]
struct Outcome {
    count: u32,
    data: MimeBundle,
    metadata: Map<String, Value>,
    brief: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    Done,
    Rejected(Failure),
    Failed(Failure),
    Lost(String),
}

impl Merger {
    /// Expects what `targets` say. `run` is unique in the notebook's life.
    pub fn new(targets: &Targets, layout: Layout, run: impl Into<String>) -> Merger {
        Merger {
            layout,
            run: run.into(),
            single: targets.single,
            voices: targets
                .ids
                .iter()
                .map(|id| Voice {
                    id: *id,
                    stdout: Text::default(),
                    stderr: Text::default(),
                    displays: Vec::new(),
                    result: None,
                    end: None,
                    activity: None,
                })
                .collect(),
            released: 0,
            brief: false,
        }
    }

    /// Long results are shown by their beginning and end, because they are bound to a variable.
    pub fn be_brief(&mut self) {
        self.brief = true;
    }

    /// Takes in what an engine said; gives what is to be shown now. What no target says, and what comes after an engine's end other than
    /// text, is dropped.
    pub fn on_event(&mut self, engine: EngineId, event: EngineEvent) -> Vec<Shown> {
        let live = self.layout.live;
        let Some(voice) = self.voices.iter_mut().find(|voice| voice.id == engine) else {
            return Vec::new();
        };
        let ended = voice.end.is_some();
        let mut shown = Vec::new();
        match event {
            EngineEvent::Stream { name, text } => {
                let stream = match name {
                    StreamName::Stdout => &mut voice.stdout,
                    StreamName::Stderr => &mut voice.stderr,
                };
                let grown = stream.push(&text, &self.run, engine, name);
                shown.extend(live.then_some(grown));
            }
            _ if ended => {}
            EngineEvent::Display {
                data,
                metadata,
                display_id,
            } => {
                let display = Display {
                    data,
                    metadata: of_engine(metadata, engine),
                    display_id: display_id.map(|id| own_id(engine, &id)),
                };
                if live {
                    shown.push(label(engine));
                    shown.push(display.show());
                }
                voice.displays.push(display);
            }
            EngineEvent::Update {
                data,
                metadata,
                display_id,
            } => {
                let display_id = own_id(engine, &display_id);
                let metadata = of_engine(metadata, engine);
                let earlier = voice
                    .displays
                    .iter_mut()
                    .find(|display| display.display_id.as_deref() == Some(&display_id));
                let known = earlier.is_some();
                if let Some(earlier) = earlier {
                    earlier.data = data.clone();
                    earlier.metadata = metadata.clone();
                }
                // What an earlier run displayed is on the page, whatever the layout of this run.
                if live || !known {
                    shown.push(Shown::Update {
                        data,
                        metadata,
                        display_id,
                    });
                }
            }
            EngineEvent::Result {
                count,
                data,
                metadata,
            } => {
                voice.result = Some(Outcome {
                    count,
                    data,
                    metadata: of_engine(metadata, engine),
                    brief: self.brief,
                });
            }
            EngineEvent::Compiling { activity } => voice.activity = activity,
            EngineEvent::Done => voice.end = Some(End::Done),
            EngineEvent::Rejected(failure) => voice.end = Some(End::Rejected(failure)),
            EngineEvent::Failed(failure) => voice.end = Some(End::Failed(failure)),
            EngineEvent::Lost { reason } => voice.end = Some(End::Lost(reason)),
        }
        if live {
            while let Some(voice) = self.voices.get(self.released)
                && voice.end.is_some()
            {
                shown.extend(voice.show_result());
                self.released += 1;
            }
        }
        shown
    }

    /// What remains to be shown when no more events are awaited: everything if not live.
    pub fn finish(&mut self) -> Vec<Shown> {
        if !self.layout.live {
            return self.all_again(self.layout.grouping);
        }
        let rest = self.voices.get(self.released..).unwrap_or_default();
        let shown = rest.iter().flat_map(Voice::show_result).collect();
        self.released = self.voices.len();
        shown
    }

    /// Everything again in this layout, for `%pxresult`.
    pub fn all_again(&self, grouping: Grouping) -> Vec<Shown> {
        grouped::render(&self.voices, grouping, self.single)
    }

    /// From now on shows live, or holds back.
    pub fn set_layout(&mut self, layout: Layout) {
        self.layout = layout;
    }

    /// The engines that have not ended, in the order of the targets.
    pub fn pending(&self) -> Vec<EngineId> {
        self.ids(|end| end.is_none())
    }

    /// What the compiler is doing, if all engines that have not ended wait for it.
    pub fn activity(&self) -> Option<&str> {
        let mut pending = self.voices.iter().filter(|voice| voice.end.is_none());
        let first = pending.next()?.activity.as_deref()?;
        pending
            .all(|voice| voice.activity.is_some())
            .then_some(first)
    }

    /// Whether every engine has ended.
    pub fn is_done(&self) -> bool {
        self.voices.iter().all(|voice| voice.end.is_some())
    }

    /// The targets.
    pub fn engines(&self) -> Vec<EngineId> {
        self.ids(|_| true)
    }

    /// Those that ended in an error.
    fn failed(&self) -> Vec<EngineId> {
        self.ids(|end| end.is_some_and(|end| *end != End::Done))
    }

    fn ids(&self, wanted: impl Fn(Option<&End>) -> bool) -> Vec<EngineId> {
        self.voices
            .iter()
            .filter(|voice| wanted(voice.end.as_ref()))
            .map(|voice| voice.id)
            .collect()
    }

    /// What all failed engines say, or nothing if none failed.
    pub fn failure(&self) -> Option<Failure> {
        composite::failure(&self.voices)
    }

    /// The plain text of each engine's result, in the order of the targets; empty where there is none.
    pub fn results(&self) -> Vec<String> {
        self.voices
            .iter()
            .map(|voice| {
                let text = voice.result.as_ref().map(|result| text_of(&result.data));
                text.unwrap_or_default().to_owned()
            })
            .collect()
    }

    /// The progress line when the run has taken so many seconds, to be shown under [`Merger::progress_id`].
    pub fn progress(&self, seconds: u64) -> MimeBundle {
        if let Some(activity) = self.activity() {
            return plain(compile_line(activity, seconds));
        }
        let total = self.voices.len();
        plain(progress_line(
            total - self.pending().len(),
            total,
            seconds,
            &self.failed(),
        ))
    }

    /// The `display_id` of the progress line.
    pub fn progress_id(&self) -> String {
        format!("{}-progress", self.run)
    }
}

impl Voice {
    fn show_result(&self) -> Vec<Shown> {
        let Some(result) = &self.result else {
            return Vec::new();
        };
        let mut shown = Vec::new();
        // A page shows the richest representation, and the label is in the plain one.
        if result.is_rich() {
            shown.push(label(self.id));
        }
        shown.push(result.show(self.id));
        shown
    }
}

impl Outcome {
    fn is_rich(&self) -> bool {
        self.data.keys().any(|mime| mime != "text/plain")
    }

    fn show(&self, engine: EngineId) -> Shown {
        let mut data = self.data.clone();
        let text = text_of(&data);
        if !text.is_empty() {
            let shortened = self.brief.then(|| shorten(text)).flatten();
            let text = shortened.as_deref().unwrap_or(text);
            let gap = if text.contains('\n') && !text.starts_with('\n') {
                "\n"
            } else {
                ""
            };
            let labelled = format!("\x1b[0;31mOut[{engine}:{}]: \x1b[0m{gap}{text}", self.count);
            data.insert("text/plain".to_owned(), Value::String(labelled));
        }
        Shown::Display {
            data,
            metadata: self.metadata.clone(),
            display_id: None,
        }
    }
}

impl Display {
    fn show(&self) -> Shown {
        Shown::Display {
            data: self.data.clone(),
            metadata: self.metadata.clone(),
            display_id: self.display_id.clone(),
        }
    }
}

impl Text {
    /// Adds text; gives the display that shows it live.
    fn push(&mut self, text: &str, run: &str, engine: EngineId, name: StreamName) -> Shown {
        let begins = self.blocks == 0 || self.all.len() - self.block_start >= LIVE_BLOCK;
        if begins {
            self.block_start = self.all.len();
            self.blocks += 1;
        }
        self.all.push_str(text);
        let name = name.as_str();
        let block = self.all.get(self.block_start..).unwrap_or_default();
        let data = plain(format!("[{name}:{engine}] {block}"));
        let metadata = of_engine(Map::new(), engine);
        let display_id = format!("{run}-{engine}-{name}-{}", self.blocks);
        if begins {
            Shown::Display {
                data,
                metadata,
                display_id: Some(display_id),
            }
        } else {
            Shown::Update {
                data,
                metadata,
                display_id,
            }
        }
    }
}

/// The beginning and the end of a text that is long.
fn shorten(text: &str) -> Option<String> {
    let count = text.chars().count();
    if count <= BRIEF {
        return None;
    }
    let head: String = text.chars().take(BRIEF / 2).collect();
    let tail: String = text.chars().skip(count - BRIEF / 4).collect();
    let left_out = count - BRIEF / 2 - BRIEF / 4;
    Some(format!("{head} <.. {left_out} characters ..> {tail}"))
}

/// Stands before what an engine displays.
fn label(engine: EngineId) -> Shown {
    Shown::plain(format!("[output:{engine}]"))
}

/// Two engines that run the same code use the same names for their displays.
fn own_id(engine: EngineId, id: &str) -> String {
    format!("engine-{engine}-{id}")
}

fn of_engine(mut metadata: Map<String, Value>, engine: EngineId) -> Map<String, Value> {
    metadata.insert("engine".to_owned(), Value::from(engine.0));
    metadata
}

#[cfg(test)]
mod tests;
