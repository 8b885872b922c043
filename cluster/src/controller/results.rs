//! What was asked and what came of it: a bounded store, with the queries that ipyparallel's clients know.
//!
//! Source: <https://ipyparallel.readthedocs.io/en/stable/reference/db.html>.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use protocol::{Header, Message, RawJson};
use serde_json::{Map, Value, json};

use crate::MessageId;

/// Text of one stream of one request that is kept, in bytes.
const STREAM: usize = 1 << 20;

/// One request and what came of it.
#[derive(Debug)]
pub struct Record {
    /// The request's header.
    pub header: Header,
    /// Its metadata.
    pub metadata: Map<String, Value>,
    /// Its content.
    pub content: RawJson,
    /// Its buffers.
    pub buffers: Vec<Bytes>,
    /// `mux` or `task`; broadcasts have none.
    pub queue: Option<&'static str>,
    /// Who runs it.
    pub engine: Option<String>,
    /// Under which id it was submitted again.
    pub resubmitted: Option<MessageId>,
    /// What came of it.
    pub result: Option<Finished>,
    output: Output,
}

/// A reply.
#[derive(Debug)]
pub struct Finished {
    /// The reply's header.
    pub header: Value,
    /// Its metadata.
    pub metadata: Map<String, Value>,
    /// Its content.
    pub content: RawJson,
    /// Its buffers.
    pub buffers: Vec<Bytes>,
    /// When the controller had it, ISO 8601.
    pub received: String,
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

/// The store.
#[derive(Debug)]
pub struct Results {
    limit: usize,
    limit_bytes: u64,
    bytes: u64,
    records: HashMap<MessageId, Record>,
    order: VecDeque<MessageId>,
}

impl Results {
    /// Keeps at most so many requests, and so many bytes of them.
    pub fn new(limit: usize, limit_bytes: u64) -> Self {
        Self {
            limit: limit.max(1),
            limit_bytes,
            bytes: 0,
            records: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// A request came in.
    pub fn add(&mut self, request: &Message, queue: Option<&'static str>, engine: Option<String>) {
        let id = MessageId(request.header.msg_id.clone());
        if self.records.contains_key(&id) {
            return;
        }
        let record = Record {
            header: request.header.clone(),
            metadata: request.metadata.clone(),
            content: request.content.clone(),
            buffers: request.buffers.clone(),
            queue,
            engine,
            resubmitted: None,
            result: None,
            output: Output::default(),
        };
        self.bytes += record.bytes();
        self.records.insert(id.clone(), record);
        self.order.push_back(id);
        self.drop_oldest();
    }

    /// A request was given to an engine.
    pub fn assign(&mut self, id: &MessageId, engine: &str) {
        if let Some(record) = self.records.get_mut(id) {
            record.engine = Some(engine.to_owned());
        }
    }

    /// A reply came, or was made because none will.
    pub fn finish(&mut self, id: &MessageId, result: Finished) {
        self.change(id, |record| record.result = Some(result));
    }

    /// A request was submitted again under a new id.
    pub fn resubmit(&mut self, id: &MessageId, new: MessageId) {
        self.change(id, |record| record.resubmitted = Some(new));
    }

    /// An engine broadcast something about a request.
    pub fn output(&mut self, id: &MessageId, msg_type: &str, content: &Value) {
        self.change(id, |record| {
            let output = &mut record.output;
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
        });
    }

    /// What is known of a request.
    pub fn get(&self, id: &MessageId) -> Option<&Record> {
        self.records.get(id)
    }

    /// All ids, oldest first.
    pub fn history(&self) -> impl Iterator<Item = &MessageId> {
        self.order.iter()
    }

    /// Ids and whole records that match a query in MongoDB's manner, oldest first.
    ///
    /// # Errors
    /// When the query has an operator that is not known.
    pub fn find(&self, query: &Map<String, Value>) -> Result<Vec<(&MessageId, Value)>, String> {
        let mut found = Vec::new();
        for id in &self.order {
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
        let (records, bytes) = (&mut self.records, &mut self.bytes);
        self.order.retain(|id| {
            let gone = records.get(id).is_none_or(|record| which(id, record));
            if gone && let Some(record) = records.remove(id) {
                *bytes -= record.bytes();
            }
            !gone
        });
    }

    fn change(&mut self, id: &MessageId, change: impl FnOnce(&mut Record)) {
        if let Some(record) = self.records.get_mut(id) {
            self.bytes -= record.bytes();
            change(record);
            self.bytes += record.bytes();
            self.drop_oldest();
        }
    }

    /// Finished requests go first, the oldest of them; others only when there is nothing else.
    fn drop_oldest(&mut self) {
        while self.records.len() > self.limit
            || (self.bytes > self.limit_bytes && self.records.len() > 1)
        {
            let finished = self.order.iter().position(|id| {
                self.records
                    .get(id)
                    .is_none_or(|record| record.result.is_some())
            });
            let Some(id) = self.order.remove(finished.unwrap_or(0)) else {
                return;
            };
            if let Some(record) = self.records.remove(&id) {
                self.bytes -= record.bytes();
            }
        }
    }
}

impl Record {
    fn bytes(&self) -> u64 {
        let buffers = |buffers: &[Bytes]| buffers.iter().map(Bytes::len).sum::<usize>();
        let mut bytes = self.content.as_bytes().len() + buffers(&self.buffers);
        if let Some(result) = &self.result {
            bytes += result.content.as_bytes().len() + buffers(&result.buffers);
        }
        let output = &self.output;
        bytes += output.stdout.len() + output.stderr.len();
        for value in [
            &output.execute_result,
            &output.display_data,
            &output.error,
            &output.execute_input,
        ] {
            bytes += size(value);
        }
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// What `get_result` wants to know.
    pub fn reply(&self) -> Value {
        let result = self.result.as_ref();
        json!({
            "header": self.header,
            "metadata": self.metadata,
            "result_metadata": result.map(|result| &result.metadata),
            "result_header": result.map(|result| &result.header),
            "result_content": result.map(|result| value(&result.content)),
            "received": result.map(|result| &result.received),
            "io": self.io(),
        })
    }

    fn io(&self) -> Value {
        json!({
            "execute_input": self.output.execute_input,
            "execute_result": self.output.execute_result,
            "error": self.output.error,
            "stdout": self.output.stdout,
            "stderr": self.output.stderr,
        })
    }

    /// All of it but the buffers.
    fn to_value(&self, id: &MessageId) -> Value {
        let result = self.result.as_ref();
        let mut record = json!({
            "msg_id": id,
            "header": self.header,
            "metadata": self.metadata,
            "content": value(&self.content),
            "submitted": self.header.date,
            "client_uuid": self.header.session,
            "engine_uuid": self.engine,
            "started": result.and_then(|result| result.metadata.get("started")),
            "completed": result.and_then(|result| result.header.get("date")),
            "resubmitted": self.resubmitted,
            "received": result.map(|result| &result.received),
            "result_header": result.map(|result| &result.header),
            "result_metadata": result.map(|result| &result.metadata),
            "result_content": result.map(|result| value(&result.content)),
            "queue": self.queue,
            "label": self.metadata.get("label"),
        });
        if let (Value::Object(record), Value::Object(io)) = (&mut record, self.io()) {
            record.extend(io);
        }
        record
    }
}

fn value(json: &RawJson) -> Value {
    json.parse().unwrap_or(Value::Null)
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
    use protocol::{Key, Session};

    use super::*;

    fn request(id: &str) -> Message {
        let session = Session::new(&Key::none());
        let content = RawJson::from_value(&json!({"code": "1"})).unwrap();
        let mut message = session.raw_message("execute_request", content, None);
        message.header.msg_id = id.to_owned();
        message
    }

    fn id(id: &str) -> MessageId {
        MessageId(id.to_owned())
    }

    fn finished(bytes: usize) -> Finished {
        Finished {
            header: json!({"date": "2026-01-01T00:00:00Z"}),
            metadata: Map::new(),
            content: RawJson::empty_object(),
            buffers: vec![Bytes::from(vec![0; bytes])],
            received: "2026-01-01T00:00:01Z".to_owned(),
        }
    }

    fn ids(results: &Results) -> String {
        let ids: Vec<_> = results.history().map(|id| id.0.as_str()).collect();
        ids.join("")
    }

    #[test]
    fn the_store_is_bounded_and_keeps_what_is_not_finished() {
        let mut results = Results::new(3, 1000);
        for name in ["a", "b", "c"] {
            results.add(&request(name), Some("mux"), None);
        }
        results.finish(&id("b"), finished(10));
        results.add(&request("d"), Some("mux"), None);
        assert_eq!(ids(&results), "acd");
        results.finish(&id("d"), finished(2000));
        assert_eq!(ids(&results), "ac", "too large to keep");
        results.purge(|_, _| true);
        assert_eq!((ids(&results).as_str(), results.bytes), ("", 0));
    }

    #[test]
    fn output_is_gathered() {
        let mut results = Results::new(3, 1 << 30);
        results.add(&request("a"), Some("mux"), None);
        for text in ["one ", "two"] {
            let content = json!({"name": "stdout", "text": text});
            results.output(&id("a"), "stream", &content);
        }
        results.output(&id("unknown"), "stream", &json!({}));
        let reply = results.get(&id("a")).unwrap().reply();
        assert_eq!(reply["io"]["stdout"], "one two");
        let long = "x".repeat(STREAM);
        results.output(&id("a"), "stream", &json!({"name": "stderr", "text": long}));
        results.output(&id("a"), "stream", &json!({"name": "stderr", "text": "y"}));
        assert_eq!(results.get(&id("a")).unwrap().output.stderr.len(), STREAM);
    }

    #[test]
    fn queries() {
        let mut results = Results::new(10, 1 << 30);
        for name in ["a", "b", "c"] {
            results.add(&request(name), Some("mux"), Some("e".to_owned()));
        }
        results.finish(&id("b"), finished(1));
        let find = |query: Value| {
            let query = query.as_object().unwrap().clone();
            results.find(&query).map(|found| {
                let ids: Vec<_> = found.into_iter().map(|(id, _)| id.0.clone()).collect();
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
