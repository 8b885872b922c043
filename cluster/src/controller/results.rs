//! What was asked and what came of it: a bounded store, with the queries that ipyparallel's clients know.
//!
//! Source: <https://ipyparallel.readthedocs.io/en/stable/reference/db.html>.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::core::Moment;
use super::packet::Packet;
use crate::MessageId;

/// Text of one stream of one request that is kept, in bytes.
const STREAM: usize = 1 << 20;
/// What a record takes besides frames and output, in bytes, roughly.
const BOOKS: u64 = 600;

/// One request and what came of it. Frames are kept as they came and read when somebody asks.
#[derive(Debug)]
pub struct Record {
    /// The request.
    pub request: Arc<Packet>,
    /// `mux` or `task`; broadcasts have none.
    pub queue: Option<&'static str>,
    /// Who runs it: an engine's identity.
    pub engine: Option<Bytes>,
    /// Under which id it was submitted again.
    pub resubmitted: Option<MessageId>,
    /// What came of it.
    pub result: Option<Finished>,
    output: Option<Box<Output>>,
    number: u64,
    bytes: u64,
}

/// A reply.
#[derive(Debug)]
pub struct Finished {
    /// The reply's header, JSON.
    pub header: Bytes,
    /// Its metadata, JSON.
    pub metadata: Bytes,
    /// Its content, JSON.
    pub content: Bytes,
    /// Its buffers.
    pub buffers: Vec<Bytes>,
    /// When the controller had it.
    pub received: jiff::Timestamp,
}

impl Finished {
    /// A reply that came.
    pub fn received(now: Moment, reply: &Packet) -> Self {
        Self {
            header: reply.header().clone(),
            metadata: reply.metadata().clone(),
            content: reply.content().clone(),
            buffers: reply.buffers().to_vec(),
            received: now.wall,
        }
    }

    /// A reply that was made because none will come; `engine` is who should have sent it, empty for nobody.
    pub fn made(now: Moment, engine: &str, metadata: &Map<String, Value>, content: &Value) -> Self {
        let header = json!({"engine": engine, "date": now.wall.to_string(), "msg_type": "error"});
        Self {
            header: Bytes::from(header.to_string()),
            metadata: rendered(metadata),
            content: Bytes::from(content.to_string()),
            buffers: Vec::new(),
            received: now.wall,
        }
    }

    fn bytes(&self) -> u64 {
        let buffers = self.buffers.iter().map(Bytes::len).sum::<usize>();
        let parts = [&self.header, &self.metadata, &self.content].map(Bytes::len);
        u64::try_from(buffers + parts.iter().sum::<usize>()).unwrap_or(u64::MAX)
    }
}

/// A map as JSON.
pub(super) fn rendered(map: &Map<String, Value>) -> Bytes {
    serde_json::to_vec(map).map_or(Bytes::from_static(b"{}"), Bytes::from)
}

#[derive(Debug, Default)]
struct Output {
    execute_input: Value,
    execute_result: Value,
    display_data: Value,
    error: Value,
    stdout: String,
    stderr: String,
}

/// The store. What has ended is bounded by number and bytes; what has not is bounded where it waits.
#[derive(Debug)]
pub struct Results {
    limit: usize,
    limit_bytes: u64,
    /// Of those that have ended.
    bytes: u64,
    records: HashMap<MessageId, Record>,
    /// By the order in which they came.
    order: BTreeMap<u64, MessageId>,
    /// Those that have ended, in the order in which they did.
    ended: VecDeque<MessageId>,
    next: u64,
}

impl Results {
    /// Keeps at most so many requests that have ended, and so many bytes of them.
    pub fn new(limit: usize, limit_bytes: u64) -> Self {
        Self {
            limit: limit.max(1),
            limit_bytes,
            bytes: 0,
            records: HashMap::new(),
            order: BTreeMap::new(),
            ended: VecDeque::new(),
            next: 0,
        }
    }

    /// A request came in.
    pub fn add(
        &mut self,
        id: MessageId,
        request: &Arc<Packet>,
        queue: Option<&'static str>,
        engine: Option<Bytes>,
    ) {
        if self.records.contains_key(&id) {
            return;
        }
        let record = Record {
            request: Arc::clone(request),
            queue,
            engine,
            resubmitted: None,
            result: None,
            output: None,
            number: self.next,
            bytes: request.size() + BOOKS,
        };
        self.order.insert(self.next, id.clone());
        self.next += 1;
        self.records.insert(id, record);
    }

    /// A request was given to an engine.
    pub fn assign(&mut self, id: &MessageId, engine: &Bytes) {
        if let Some(record) = self.records.get_mut(id) {
            record.engine = Some(engine.clone());
        }
    }

    /// A reply came, or was made because none will. Gives the request's id if it is known.
    pub fn finish(&mut self, id: &str, result: Finished) -> Option<MessageId> {
        let (id, _) = self.records.get_key_value(id)?;
        let id = id.clone();
        let record = self.records.get_mut(&id)?;
        let before = record.result.as_ref().map(Finished::bytes);
        match before {
            Some(before) => {
                self.bytes -= record.bytes;
                record.bytes -= before;
            }
            None => self.ended.push_back(id.clone()),
        }
        record.bytes += result.bytes();
        self.bytes += record.bytes;
        record.result = Some(result);
        self.drop_oldest();
        Some(id)
    }

    /// A request was submitted again under a new id.
    pub fn resubmit(&mut self, id: &MessageId, new: MessageId) {
        if let Some(record) = self.records.get_mut(id) {
            record.resubmitted = Some(new);
        }
    }

    /// An engine broadcast something about a request.
    pub fn output(&mut self, id: &str, msg_type: &str, content: &Value) {
        let Some(record) = self.records.get_mut(id) else {
            return;
        };
        let output = record.output.get_or_insert_default();
        let before = output.bytes();
        match msg_type {
            "stream" => {
                let stream = match content["name"].as_str() {
                    Some("stderr") => &mut output.stderr,
                    _ => &mut output.stdout,
                };
                let text = content["text"].as_str().unwrap_or_default();
                if stream.len() + text.len() <= STREAM {
                    stream.push_str(text);
                }
            }
            "error" => output.error = content.clone(),
            "execute_input" => output.execute_input = content["code"].clone(),
            "execute_result" => output.execute_result = content.clone(),
            "display_data" => output.display_data = content.clone(),
            _ => {}
        }
        let after = output.bytes();
        record.bytes = record.bytes + after - before;
        if record.result.is_some() {
            self.bytes = self.bytes + after - before;
            self.drop_oldest();
        }
    }

    /// What is known of a request.
    pub fn get(&self, id: &str) -> Option<&Record> {
        self.records.get(id)
    }

    /// All ids, oldest first.
    pub fn history(&self) -> impl Iterator<Item = &MessageId> {
        self.order.values()
    }

    /// Ids and whole records that match a query in MongoDB's manner, oldest first.
    ///
    /// # Errors
    /// When the query has an operator that is not known.
    pub fn find(&self, query: &Map<String, Value>) -> Result<Vec<(&MessageId, Value)>, String> {
        let mut found = Vec::new();
        for id in self.order.values() {
            let Some(record) = self.records.get(id) else {
                continue;
            };
            let value = record.to_value(id);
            if matches(&value, query)? {
                found.push((id, value));
            }
        }
        Ok(found)
    }

    /// Forgets what `which` says yes to.
    pub fn purge(&mut self, mut which: impl FnMut(&MessageId, &Record) -> bool) {
        let all = self.records.iter();
        let gone: Vec<MessageId> = all
            .filter(|(id, record)| which(id, record))
            .map(|(id, _)| id.clone())
            .collect();
        for id in &gone {
            self.remove(id);
        }
        let records = &self.records;
        self.ended.retain(|id| records.contains_key(id));
    }

    fn remove(&mut self, id: &MessageId) {
        if let Some(record) = self.records.remove(id) {
            self.order.remove(&record.number);
            if record.result.is_some() {
                self.bytes -= record.bytes;
            }
        }
    }

    fn drop_oldest(&mut self) {
        while self.ended.len() > self.limit
            || (self.bytes > self.limit_bytes && !self.ended.is_empty())
        {
            if let Some(id) = self.ended.pop_front() {
                self.remove(&id);
            }
        }
    }
}

impl Output {
    fn bytes(&self) -> u64 {
        let mut bytes = self.stdout.len() + self.stderr.len();
        for value in [
            &self.execute_result,
            &self.display_data,
            &self.error,
            &self.execute_input,
        ] {
            bytes += size(value);
        }
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

impl Record {
    /// What `get_result` wants to know.
    pub fn reply(&self) -> Value {
        let result = self.result.as_ref();
        json!({
            "header": value(self.request.header()),
            "metadata": value(self.request.metadata()),
            "result_metadata": result.map(|result| value(&result.metadata)),
            "result_header": result.map(|result| value(&result.header)),
            "result_content": result.map(|result| value(&result.content)),
            "received": result.map(|result| result.received.to_string()),
            "io": self.io(),
        })
    }

    fn io(&self) -> Value {
        let none = Output::default();
        let output = self.output.as_deref().unwrap_or(&none);
        json!({
            "execute_input": output.execute_input,
            "execute_result": output.execute_result,
            "error": output.error,
            "stdout": output.stdout,
            "stderr": output.stderr,
        })
    }

    /// All of it but the buffers.
    fn to_value(&self, id: &MessageId) -> Value {
        let header = value(self.request.header());
        let metadata = value(self.request.metadata());
        let result = self.result.as_ref();
        let result_header = result.map(|result| value(&result.header));
        let result_metadata = result.map(|result| value(&result.metadata));
        let engine = self.engine.as_ref();
        let mut record = json!({
            "msg_id": id,
            "content": value(self.request.content()),
            "submitted": header["date"],
            "client_uuid": header["session"],
            "engine_uuid": engine.map(|engine| String::from_utf8_lossy(engine)),
            "started": result_metadata.as_ref().and_then(|it| it.get("started")),
            "completed": result_header.as_ref().and_then(|it| it.get("date")),
            "resubmitted": self.resubmitted,
            "received": result.map(|result| result.received.to_string()),
            "result_header": result_header,
            "result_metadata": result_metadata,
            "result_content": result.map(|result| value(&result.content)),
            "queue": self.queue,
            "label": metadata["label"],
            "header": header,
            "metadata": metadata,
        });
        if let (Value::Object(record), Value::Object(io)) = (&mut record, self.io()) {
            record.extend(io);
        }
        record
    }
}

fn value(json: &Bytes) -> Value {
    serde_json::from_slice(json).unwrap_or(Value::Null)
}

fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(size).sum(),
        Value::Object(map) => map.iter().map(|(key, value)| key.len() + size(value)).sum(),
        _ => 8,
    }
}

/// Whether a record matches a query in MongoDB's manner: a field's value, or an object of operators.
fn matches(record: &Value, query: &Map<String, Value>) -> Result<bool, String> {
    for (field, wanted) in query {
        let found = record.get(field).unwrap_or(&Value::Null);
        let good = match wanted {
            Value::Object(tests) => {
                let mut good = true;
                for (operator, argument) in tests {
                    good &= test(operator, found, argument)?;
                }
                good
            }
            wanted => found == wanted,
        };
        if !good {
            return Ok(false);
        }
    }
    Ok(true)
}

fn test(operator: &str, found: &Value, argument: &Value) -> Result<bool, String> {
    let among = |value: &Value| {
        argument
            .as_array()
            .is_some_and(|values| values.contains(value))
    };
    Ok(match operator {
        "$eq" => found == argument,
        "$ne" => found != argument,
        "$lt" => compare(found, argument).is_some_and(|order| order.is_lt()),
        "$lte" => compare(found, argument).is_some_and(|order| order.is_le()),
        "$gt" => compare(found, argument).is_some_and(|order| order.is_gt()),
        "$gte" => compare(found, argument).is_some_and(|order| order.is_ge()),
        "$in" => among(found),
        "$nin" => !among(found),
        "$exists" => argument.as_bool().unwrap_or(false) != found.is_null(),
        "$all" => match (found.as_array(), argument.as_array()) {
            (Some(found), Some(wanted)) => wanted.iter().all(|value| found.contains(value)),
            _ => false,
        },
        "$mod" => match (found.as_i64(), argument.as_array().map(Vec::as_slice)) {
            (Some(found), Some([divisor, rest])) => divisor
                .as_i64()
                .and_then(|divisor| found.checked_rem_euclid(divisor))
                .is_some_and(|found| Some(found) == rest.as_i64()),
            _ => false,
        },
        _ => return Err(format!("there is no operator {operator}")),
    })
}

/// Numbers and texts, and so dates, of which clients and engines write one kind.
fn compare(one: &Value, two: &Value) -> Option<std::cmp::Ordering> {
    match (one, two) {
        (Value::String(one), Value::String(two)) => {
            let (dates, texts) = ((date(one), date(two)), one.cmp(two));
            match dates {
                (Some(one), Some(two)) => Some(one.cmp(&two)),
                _ => Some(texts),
            }
        }
        (one, two) => one.as_f64()?.partial_cmp(&two.as_f64()?),
    }
}

fn date(text: &str) -> Option<jiff::Timestamp> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use protocol::{Key, RawJson, Session};

    use super::*;

    fn add(results: &mut Results, id: &str) {
        let session = Session::new(&Key::none());
        let content = RawJson::from_value(&json!({"code": "1"})).unwrap();
        let mut message = session.raw_message("execute_request", content, None);
        message.header.msg_id = id.to_owned();
        let packet = Packet::of(session.encode(&message)).unwrap();
        results.add(MessageId::from(id), &Arc::new(packet), Some("mux"), None);
    }

    fn finished(bytes: usize) -> Finished {
        Finished {
            header: Bytes::from_static(br#"{"date": "2026-01-01T00:00:00Z"}"#),
            metadata: Bytes::from_static(b"{}"),
            content: Bytes::from_static(b"{}"),
            buffers: vec![Bytes::from(vec![0; bytes])],
            received: "2026-01-01T00:00:01Z".parse().unwrap(),
        }
    }

    fn ids(results: &Results) -> String {
        let ids: Vec<_> = results.history().map(|id| &*id.0).collect();
        ids.join("")
    }

    #[test]
    fn the_store_is_bounded_and_keeps_what_is_not_finished() {
        let mut results = Results::new(2, 10_000);
        for name in ["a", "b", "c", "d", "e"] {
            add(&mut results, name);
        }
        assert_eq!((ids(&results).as_str(), results.bytes), ("abcde", 0));
        for name in ["d", "b", "c"] {
            results.finish(name, finished(10));
        }
        assert_eq!(ids(&results), "abce", "the first to end is forgotten");
        results.finish("c", finished(20));
        results.finish("e", finished(20_000));
        assert_eq!(ids(&results), "a", "too large to keep");
        assert_eq!(results.bytes, 0);
        results.finish("a", finished(10));
        assert!(results.bytes > 10);
        results.purge(|_, _| true);
        assert_eq!((ids(&results).as_str(), results.bytes), ("", 0));
        assert!(results.ended.is_empty());
    }

    #[test]
    fn output_is_gathered() {
        let mut results = Results::new(3, 1 << 30);
        add(&mut results, "a");
        for text in ["one ", "two"] {
            let content = json!({"name": "stdout", "text": text});
            results.output("a", "stream", &content);
        }
        results.output("unknown", "stream", &json!({}));
        let reply = results.get("a").unwrap().reply();
        assert_eq!(reply["io"]["stdout"], "one two");
        let long = "x".repeat(STREAM);
        results.output("a", "stream", &json!({"name": "stderr", "text": long}));
        results.output("a", "stream", &json!({"name": "stderr", "text": "y"}));
        assert_eq!(
            results
                .get("a")
                .unwrap()
                .output
                .as_ref()
                .unwrap()
                .stderr
                .len(),
            STREAM
        );
    }

    #[test]
    fn queries() {
        let mut results = Results::new(10, 1 << 30);
        for name in ["a", "b", "c"] {
            add(&mut results, name);
        }
        results.finish("b", finished(1));
        let find = |query: Value| {
            let query = query.as_object().unwrap().clone();
            results.find(&query).map(|found| {
                let ids: Vec<_> = found.into_iter().map(|(id, _)| id.to_string()).collect();
                ids.join("")
            })
        };
        for (query, found) in [
            (json!({}), "abc"),
            (json!({"msg_id": "a"}), "a"),
            (json!({"msg_id": {"$in": ["a", "c"]}}), "ac"),
            (json!({"completed": null}), "ac"),
            (json!({"completed": {"$ne": null}, "queue": "mux"}), "b"),
            (json!({"completed": {"$exists": true}}), "b"),
            (
                json!({"completed": {"$lt": "2026-01-01T01:00:00.5+00:00"}}),
                "b",
            ),
            (json!({"completed": {"$gte": "2027-01-01T00:00:00Z"}}), ""),
        ] {
            assert_eq!(find(query.clone()).unwrap(), found, "{query}");
        }
        assert!(find(json!({"msg_id": {"$where": "1"}})).is_err());
    }
}
