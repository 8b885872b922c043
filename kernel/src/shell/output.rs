//! A cell's output on its way to its page.

use crate::kernel::lock;
use crate::outlet::Outlet;
use cluster::output::Output;
use protocol::Header;
use protocol::message::MimeBundle;
use protocol::message::iopub::{
    ClearOutput, CompileStatus, DisplayData, Transient, UpdateDisplayData,
};
use serde_json::Value;
use std::sync::Mutex;

/// Publishes a cell's output, and what it waits for until there is some: a line that changes and is removed.
pub(super) struct CellOutput {
    outlet: Outlet,
    parent: Header,
    page: Mutex<Page>,
}

/// What the cell's page shows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Page {
    Empty,
    /// The line, and nothing else.
    Line,
    /// Output. A line would have to stay, since pages can only be cleared as a whole.
    Output,
}

impl CellOutput {
    pub(super) fn new(outlet: Outlet, parent: Header) -> CellOutput {
        CellOutput {
            outlet,
            parent,
            page: Mutex::new(Page::Empty),
        }
    }

    pub(super) fn publish(&self, output: Output) {
        let parent = Some(&self.parent);
        let mut page = lock(&self.page);
        if let Output::CompileStatus(CompileStatus { activity }) = output {
            *page = match (*page, activity) {
                (Page::Output, _) => Page::Output,
                (now, Some(activity)) => self.show_line(now, activity),
                (now, None) => self.remove_line(now),
            };
            return;
        }
        self.remove_line(*page);
        *page = Page::Output;
        match output {
            Output::Stream(content) => self.outlet.publish(parent, &content),
            Output::Display(content) => self.outlet.publish(parent, &content),
            Output::Update(content) => self.outlet.publish(parent, &content),
            Output::Clear(content) => self.outlet.publish(parent, &content),
            Output::CompileStatus(_) => {}
        }
    }

    fn show_line(&self, now: Page, activity: String) -> Page {
        let data = MimeBundle::from_iter([("text/plain".to_owned(), Value::String(activity))]);
        let transient = Transient::named(format!("{}-compile-status", self.parent.msg_id));
        let parent = Some(&self.parent);
        if now == Page::Line {
            let update = UpdateDisplayData {
                data,
                transient,
                ..UpdateDisplayData::default()
            };
            self.outlet.publish(parent, &update);
        } else {
            let display = DisplayData {
                data,
                transient,
                ..DisplayData::default()
            };
            self.outlet.publish(parent, &display);
        }
        Page::Line
    }

    fn remove_line(&self, now: Page) -> Page {
        if now == Page::Line {
            let clear = ClearOutput { wait: false };
            self.outlet.publish(Some(&self.parent), &clear);
        }
        Page::Empty
    }
}
