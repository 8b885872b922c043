//! The layouts for outputs that are complete: by type, by engine, in order.
//!
//! Fact: ipyparallel 9 `client/asyncresult.py`, `display_outputs`.

use super::{Display, Voice, label};
use crate::event::{EngineId, Shown, StreamName};
use crate::options::Grouping;

/// Lays out what all voices said; without labels for a `single` one.
pub(super) fn render(voices: &[Voice], grouping: Grouping, single: bool) -> Vec<Shown> {
    let mut page = Page::default();
    if single {
        for voice in voices {
            page.stream(StreamName::Stdout, None, &voice.stdout.all);
            page.stream(StreamName::Stderr, None, &voice.stderr.all);
            page.shown.extend(voice.displays.iter().map(Display::show));
            page.shown
                .extend(voice.result.as_ref().map(|result| result.show(voice.id)));
        }
        return page.shown;
    }
    if grouping == Grouping::Engine {
        for voice in voices {
            page.stream(StreamName::Stdout, Some(voice.id), &voice.stdout.all);
            page.stream(StreamName::Stderr, Some(voice.id), &voice.stderr.all);
            if !voice.displays.is_empty() || voice.result.is_some() {
                page.shown.push(label(voice.id));
            }
            page.shown.extend(voice.displays.iter().map(Display::show));
            page.shown
                .extend(voice.result.as_ref().map(|result| result.show(voice.id)));
        }
        return page.shown;
    }
    for voice in voices {
        page.stream(StreamName::Stdout, Some(voice.id), &voice.stdout.all);
    }
    for voice in voices {
        page.stream(StreamName::Stderr, Some(voice.id), &voice.stderr.all);
    }
    if grouping == Grouping::Order {
        let most = voices.iter().map(|voice| voice.displays.len()).max();
        for nth in 0..most.unwrap_or(0) {
            for voice in voices {
                if let Some(display) = voice.displays.get(nth) {
                    page.shown.push(label(voice.id));
                    page.shown.push(display.show());
                }
            }
        }
    } else {
        for voice in voices {
            if !voice.displays.is_empty() {
                page.shown.push(label(voice.id));
            }
            page.shown.extend(voice.displays.iter().map(Display::show));
        }
    }
    page.shown
        .extend(voices.iter().flat_map(Voice::show_result));
    page.shown
}

/// What is shown so far. Neighbouring text of one stream is one piece.
#[derive(Default)]
struct Page {
    shown: Vec<Shown>,
    within_line: bool,
}

impl Page {
    /// Adds an engine's text under its label.
    fn stream(&mut self, name: StreamName, engine: Option<EngineId>, text: &str) {
        if text.is_empty() {
            return;
        }
        let mut labelled = String::new();
        if let Some(engine) = engine {
            if self.within_line {
                labelled.push('\n');
            }
            labelled.push_str(&format!("[{}:{engine}] \n", name.as_str()));
        }
        labelled.push_str(text);
        self.within_line = !text.ends_with('\n');
        match self.shown.last_mut() {
            Some(Shown::Stream { name: last, text }) if *last == name => text.push_str(&labelled),
            _ => self.shown.push(Shown::Stream {
                name,
                text: labelled,
            }),
        }
    }
}
