//! The cells of wordcount.ipynb, which `chorus demo` runs one by one. `// %%` begins a cell; src/lib.rs reads this file and
//! its test keeps the notebook equal to it.

// %% [markdown]
// # Counting the words of a text
//
// How often does each word of a book occur? This notebook counts on one core, then on several engines at once, and measures
// whether that was worth it. Run the cells from top to bottom with Shift+Enter. Every function and variable of a cell is
// there in the cells below it.

// %% [markdown]
// ## Engines
//
// An engine is a process that runs Rust beside this notebook, with variables of its own. A cluster of them may already
// run (`chorus cluster start`); otherwise the first `%px` starts one on this machine with one engine a core, and says so.
// `%px` runs a line on all engines, `%%px` a whole cell, and what they print comes back labelled with the engine's number.

// %%
%px println!("engine {} is process {}", std::env::var("CHORUS_ENGINE_ID")?, std::process::id());

// %% [markdown]
// ## A text
//
// The text is the file named by the environment variable `CHORUS_TEXT`. Without it, it is a children's magazine of 1887 (Project
// Gutenberg, no. 27287) if that lies beside the repository, and otherwise one made up here: as long, with words whose
// frequencies follow Zipf's law as those of real texts do, and the same in every run.
//
// `--local` defines the functions in the notebook too.

// %%
%%px --local
use std::path::Path;

const BOOKS: [&str; 2] = ["../../shared/data/27287-0.txt", "../shared/data/27287-0.txt"];
const MADE_UP_BYTES: usize = 271_565;

/// A word of its own for every rank: the more frequent, the shorter.
fn made_up_word(rank: usize) -> String {
    const SYLLABLES: [&str; 16] = [
        "ka", "lo", "mi", "ne", "ru", "sa", "ti", "vo", "be", "du", "fi", "go", "ha", "je", "pu", "wa",
    ];
    let mut word = String::new();
    let mut rest = rank;
    loop {
        word.push_str(SYLLABLES[rest % 16]);
        rest /= 16;
        if rest == 0 {
            return word;
        }
    }
}

/// A text of `bytes` bytes in lines of about 70. Word `n` is drawn about half as often as word `n / 2`.
fn made_up_text(bytes: usize) -> String {
    let mut state: u64 = 1887;
    let mut random = move || {
        // SplitMix64
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    };
    let vocabulary = 8_000f64;
    let mut text = String::with_capacity(bytes + 16);
    let mut line = 0;
    while text.len() < bytes {
        let before = text.len();
        text.push_str(&made_up_word(vocabulary.powf(random()) as usize - 1));
        line += text.len() - before + 1;
        text.push(if line > 70 { '\n' } else { ' ' });
        if line > 70 {
            line = 0;
        }
    }
    text.truncate(bytes);
    text
}

/// The text and where it is from.
fn read_text() -> std::io::Result<(String, String)> {
    let named = std::env::var("CHORUS_TEXT").ok();
    let beside = BOOKS.iter().find(|path| Path::new(path).exists()).map(|path| path.to_string());
    match named.or(beside) {
        Some(path) => Ok((std::fs::read_to_string(&path)?, path)),
        None => Ok((made_up_text(MADE_UP_BYTES), "made up".to_string())),
    }
}

// %%
let (text, origin) = read_text()?;
println!("{} bytes in {} lines ({origin})", text.len(), text.lines().count());

// %% [markdown]
// ## Counting
//
// A word is a run of letters and digits; an apostrophe inside it belongs to it. *The* and *the* are the same word.

// %%
%%px --local
use std::collections::HashMap;

fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !c.is_alphanumeric() && c != '\'' && c != '’')
        .map(|word| word.trim_matches(['\'', '’']))
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
}

fn count_words(text: &str) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for word in words(text) {
        *counts.entry(word).or_insert(0) += 1;
    }
    counts
}

// %%
count_words("The cat saw the other cat: “The cat’s!”").len()

// %%
let counts = count_words(&text);
println!("{} words, {} of them different", counts.values().sum::<usize>(), counts.len());

// %% [markdown]
// How long does it take on one core? `%timeit` compiles once, then runs it often enough to tell.

// %%
%timeit count_words(&text)

// %% [markdown]
// ## Counting on all engines: `%px`
//
// Every engine reads the text and keeps its part of it: as many parts as there are cores, each ending with a whole word.

// %%
%%px --local
/// One of so many parts of a text, of about equal length. None ends within a word.
fn part(text: &str, number: usize, parts: usize) -> &str {
    let border = |number: usize| {
        let at = text.len() * number / parts;
        (at..text.len()).find(|at| text.is_char_boundary(*at) && text[*at..].starts_with(char::is_whitespace)).unwrap_or(text.len())
    };
    let start = if number == 0 { 0 } else { border(number) };
    &text[start..border(number + 1)]
}

// %%
%%px
let engine: usize = std::env::var("CHORUS_ENGINE_ID")?.parse()?;
let engines = std::thread::available_parallelism()?.get();
let (text, _) = read_text()?;
let my_part = part(&text, engine, engines).to_string();
println!("part {engine} of {engines}: {} bytes", my_part.len());

// %% [markdown]
// Now each engine counts its part. The value of the last line is an engine's result, and `-o` binds the results, as text,
// to a variable of the notebook: a `Vec<String>` with one entry for each engine.

// %%
%%px --out partial_counts
count_words(&my_part)

// %% [markdown]
// A map shows itself as `{"the": 12, "cat": 3}`. Read that back, add up what the engines counted, and compare with the count on
// one core:

// %%
fn read_counts(shown: &str) -> impl Iterator<Item = (String, usize)> + '_ {
    shown.trim_matches(['{', '}', '\n']).split(", ").filter_map(|entry| {
        let (word, count) = entry.split_once(": ")?;
        Some((word.trim_matches('"').to_string(), count.parse().ok()?))
    })
}

let mut merged: HashMap<String, usize> = HashMap::new();
for partial in &partial_counts {
    for (word, count) in read_counts(partial) {
        *merged.entry(word).or_insert(0) += count;
    }
}
println!("{} words, {} of them different, merged from {} engines", merged.values().sum::<usize>(), merged.len(), partial_counts.len());
assert!(merged == counts, "the engines and the notebook have counted differently");

// %% [markdown]
// And the time from the request to the last engine's answer:

// %%
%timeit %px count_words(&my_part).len()

// %% [markdown]
// A text of this size is counted in a few milliseconds, and about one of them is the way of a `%px` to the engines and back.

// %% [markdown]
// ## Counting on all engines: closures
//
// With the crate `chorus`, which every cell can use, functions and closures go to engines as they are, and what comes back has its type: nothing has
// to be read from text. `share` sends the text to the engines; there it stays for all calls that follow. `counts` adds up what they give, word by word.

// %%
use chorus::Client;

let client = Client::connect()?;
let shared_text = client.share(&text)?;
let engines = client.ids()?.len();
let parts: Vec<(usize, usize)> = (0..engines).map(|number| (number, engines)).collect();

fn count_part(text: &String, (number, parts): (usize, usize)) -> HashMap<String, usize> {
    count_words(part(text, number, parts))
}

let typed = client.all().map_shared(&shared_text, &parts, count_part).counts()?;
assert!(typed == counts, "the engines and the notebook have counted differently");

// %%
%timeit client.all().map_shared(&shared_text, &parts, count_part).counts()?

// %% [markdown]
// Does that pay for so short a text? Both ways by turns, and the median of each:

// %%
let mut times = [Vec::new(), Vec::new()];
for _ in 0..51 {
    let begin = std::time::Instant::now();
    count_words(&text);
    times[0].push(begin.elapsed());
    let begin = std::time::Instant::now();
    client.all().map_shared(&shared_text, &parts, count_part).counts()?;
    times[1].push(begin.elapsed());
}
let [alone, together] = times.map(|mut times| {
    times.sort();
    times[times.len() / 2]
});
let gain = alone.as_secs_f64() / together.as_secs_f64();
let verdict = if gain > 1.0 { "it pays" } else { "it does not pay" };
println!("{} kB: {alone:.3?} on one core, {together:.3?} on {engines} engines, {gain:.2} times one core: {verdict}", text.len() / 1000);

// %% [markdown]
// The shortest way to write it is `%%parallel`: the cell is the body of a closure over parts of a variable, and what the parts gave is merged.

// %%
let lines: Vec<String> = text.lines().map(str::to_string).collect();

// %%
%%parallel --over lines --merge counts --into counted
count_words(&lines.join("\n"))

// %%
assert!(counted == counts, "%%parallel has counted differently");
counted.len()

// %% [markdown]
// ## When does it pay?
//
// The way to the engines and back, and merging what they counted, take the same time for a short text and a long one. So let the text be a
// hundred times as long. On one core:

// %%
let long_text = text.repeat(100);
println!("{} MB", long_text.len() / 1_000_000);

// %%
let begin = std::time::Instant::now();
let long_counts = count_words(&long_text);
let serial = begin.elapsed();
println!("one core: {serial:.3?}");

// %% [markdown]
// On all engines, in as many parts as there are engines:

// %%
let shared_long_text = client.share(&long_text)?;
// The first call takes the text to the engines; the ones to be timed find it there.
client.all().map_shared(&shared_long_text, &parts, |text, _| text.len()).get()?;
let begin = std::time::Instant::now();
let merged_long = client.all().map_shared(&shared_long_text, &parts, count_part).counts()?;
let equal_parts = begin.elapsed();
assert!(merged_long == long_counts, "the engines and the notebook have counted differently");
println!("{engines} engines: {equal_parts:.3?}, {:.2} times one core", serial.as_secs_f64() / equal_parts.as_secs_f64());

// %% [markdown]
// Load balanced, in eight parts for each engine: whoever is done gets the next one. An engine that is slow, or a core that somebody else uses too, holds nobody
// up. The picture shows who counted what, and when.

// %%
let many: Vec<(usize, usize)> = (0..8 * engines).map(|number| (number, 8 * engines)).collect();
let begin = std::time::Instant::now();
let balanced = client.load_balanced_view().chunk_size(1).map_shared(&shared_long_text, &many, count_part);
let balanced_counts = balanced.counts()?;
let took = begin.elapsed();
balanced

// %%
assert!(balanced_counts == long_counts, "the engines and the notebook have counted differently");
println!("{engines} engines, load balanced: {took:.3?}, {:.2} times one core", serial.as_secs_f64() / took.as_secs_f64());

// %% [markdown]
// These are the times of this run, on this machine. A figure below 1 says that it didn't pay: cores that are busy with something else, or a
// text that is too short.

// %% [markdown]
// ## The twenty most frequent words
//
// Equal counts are ordered by the alphabet, so that the list is the same each time.

// %%
fn most_frequent(counts: &HashMap<String, usize>, n: usize) -> Vec<(String, usize)> {
    let mut ranking: Vec<(String, usize)> = counts.iter().map(|(word, count)| (word.clone(), *count)).collect();
    ranking.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    ranking.truncate(n);
    ranking
}

let top = most_frequent(&merged, 20);
top.iter().take(3).collect::<Vec<_>>()

// %% [markdown]
// A type shows itself as it likes if it has a method `evcxr_display`: what it prints between the two markers is shown
// as the MIME type that the first one names. Here that is HTML, with plain text beside it for front ends without HTML.

// %%
#[derive(Clone)]
struct Table(Vec<(String, usize)>);

impl Table {
    fn evcxr_display(&self) {
        let mut html = String::from("<table><tr><th>#</th><th>word</th><th>count</th></tr>");
        let mut plain = String::new();
        for (rank, (word, count)) in self.0.iter().enumerate() {
            let rank = rank + 1;
            // Letters, digits and apostrophes only: nothing that HTML would take for markup.
            html += &format!("<tr><td>{rank}</td><td>{word}</td><td>{count}</td></tr>");
            plain += &format!("{rank:>3}  {word:<16}{count:>7}\n");
        }
        html += "</table>";
        println!("EVCXR_BEGIN_CONTENT text/html\n{html}\nEVCXR_END_CONTENT");
        println!("EVCXR_BEGIN_CONTENT text/plain\n{plain}EVCXR_END_CONTENT");
    }
}

Table(top.clone())

// %% [markdown]
// And as a picture, drawn as SVG in the same way:

// %%
#[derive(Clone)]
struct Bars(Vec<(String, usize)>);

impl Bars {
    fn evcxr_display(&self) {
        let most = self.0.first().map_or(1, |(_, count)| *count) as f64;
        let height = 18 * self.0.len() + 4;
        let mut svg = format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" width="520" height="{height}" font-family="sans-serif" font-size="12">"##
        );
        svg += r##"<rect width="100%" height="100%" fill="#fff"/>"##;
        for (row, (word, count)) in self.0.iter().enumerate() {
            let (y, width) = (18 * row + 2, *count as f64 / most * 360.0);
            svg += &format!(
                r##"<text x="92" y="{}" text-anchor="end">{word}</text><rect x="98" y="{y}" width="{width:.1}" height="14" fill="#cf5527"/><text x="{:.1}" y="{}">{count}</text>"##,
                y + 11,
                width + 103.0,
                y + 11,
            );
        }
        svg += "</svg>";
        println!("EVCXR_BEGIN_CONTENT image/svg+xml\n{svg}\nEVCXR_END_CONTENT");
        println!("EVCXR_BEGIN_CONTENT text/plain\nbar chart of {} words\nEVCXR_END_CONTENT", self.0.len());
    }
}

Bars(top.clone())
