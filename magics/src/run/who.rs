//! `%who` and `%whos`, in IPython's layout.

use super::{Notebook, Variable};
use crate::event::Shown;
use crate::options::WhoArgs;

/// Names in a line.
const A_LINE: usize = 9;
/// Between two columns.
const GAP: usize = 3;

pub(super) async fn who(options: &WhoArgs, notebook: &mut impl Notebook) {
    let text = match wanted(options, notebook).await {
        Ok(variables) => variables
            .chunks(A_LINE)
            .map(|line| {
                let names: Vec<&str> = line.iter().map(|variable| variable.name.as_str()).collect();
                format!("{}\n", names.join("\t "))
            })
            .collect(),
        Err(nothing) => nothing,
    };
    notebook.show(Shown::stdout(text));
}

pub(super) async fn whos(options: &WhoArgs, notebook: &mut impl Notebook) {
    let text = match wanted(options, notebook).await {
        Ok(variables) => table(&variables),
        Err(nothing) => nothing,
    };
    notebook.show(Shown::stdout(text));
}

/// The variables that are asked for, or what to say when there are none.
async fn wanted(options: &WhoArgs, notebook: &mut impl Notebook) -> Result<Vec<Variable>, String> {
    let mut variables = notebook.variables().await;
    if variables.is_empty() {
        return Err("Interactive namespace is empty.\n".to_owned());
    }
    if !options.types.is_empty() {
        variables.retain(|variable| {
            options
                .types
                .iter()
                .any(|wanted| is_type(&variable.type_name, wanted))
        });
    }
    if variables.is_empty() {
        return Err("No variables match your requested type.\n".to_owned());
    }
    Ok(variables)
}

/// `Vec` means every `Vec<T>`, with or without its path.
fn is_type(type_name: &str, wanted: &str) -> bool {
    let bare = type_name.split('<').next().unwrap_or(type_name);
    let last = bare.rsplit("::").next().unwrap_or(bare);
    [type_name, bare, last].contains(&wanted)
}

fn table(variables: &[Variable]) -> String {
    let widest = |texts: &mut dyn Iterator<Item = &str>, title: &str| {
        let widths = texts.map(|text| text.chars().count());
        widths.fold(title.len(), usize::max) + GAP
    };
    let names = widest(
        &mut variables.iter().map(|variable| variable.name.as_str()),
        "Variable",
    );
    let types = widest(
        &mut variables.iter().map(|variable| variable.type_name.as_str()),
        "Type",
    );
    let with_data = variables.iter().any(|variable| variable.summary.is_some());
    let data = if with_data { " Data/Info" } else { "" };
    let mut text = format!("{:<names$}{:<types$}{data}\n", "Variable", "Type");
    text.push_str(&"-".repeat(names + types + data.len()));
    text.push('\n');
    for variable in variables {
        let summary = variable.summary.as_deref().map(short).unwrap_or_default();
        let line = format!(
            "{:<names$}{:<types$} {summary}",
            variable.name, variable.type_name
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A value in a line: the first and last 25 characters of a long one.
fn short(text: &str) -> String {
    let text = text.replace('\n', "\\n");
    let count = text.chars().count();
    if count < 50 {
        return text;
    }
    let head: String = text.chars().take(25).collect();
    let tail: String = text.chars().skip(count - 25).collect();
    format!("{head}<...>{tail}")
}
