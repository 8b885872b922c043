//! What clients ask the hub, and how it answers. Messages and their contents are ipyparallel's.
//!
//! Source: <https://ipyparallel.readthedocs.io/en/stable/reference/messages.html>.

use std::collections::HashSet;

use bytes::Bytes;
use protocol::Message;
use serde_json::{Map, Value, json};

use super::core::{Channel, Core, Moment, Outcome, say};
use crate::failure::hub_error;
use crate::{EngineId, MessageId};

/// A refusal: an error's name and text.
type Refusal = (&'static str, String);

/// A question is answered by a type, a content and buffers.
type Answer = Result<(&'static str, Value, Vec<Bytes>), Refusal>;

impl Core {
    pub(super) fn on_query(&mut self, now: Moment, message: &Message, out: &mut Vec<Outcome>) {
        let content: Value = message.parse().unwrap_or_default();
        let answer: Answer = match message.msg_type() {
            "registration_request" => return self.register(now, message, &content, out),
            "unregistration_request" => return self.on_unregistration(now, &content, out),
            "connection_request" => Ok(("connection_reply", self.connection(), Vec::new())),
            "queue_request" => self.queue(&content).map(plain("queue_reply")),
            "load_request" => self.load(&content).map(plain("load_reply")),
            "result_request" => Ok(self.result(&content)),
            "history_request" => {
                let history: Vec<_> = self.results.history().collect();
                let content = json!({"status": "ok", "history": history});
                Ok(("history_reply", content, Vec::new()))
            }
            "db_request" => self.database(&content),
            "purge_request" => Ok(("purge_reply", self.purge(&content), Vec::new())),
            "resubmit_request" => {
                let content = self.resubmit(now, &content, out);
                Ok(("resubmit_reply", content, Vec::new()))
            }
            "shutdown_request" => Ok(("shutdown_reply", json!({"status": "ok"}), Vec::new())),
            other => Err(("KeyError", format!("Bad Message Type: {other:?}"))),
        };
        let (msg_type, content, buffers) = answer
            .unwrap_or_else(|(ename, evalue)| ("hub_error", hub_error(ename, evalue), Vec::new()));
        let to = message.identities.clone();
        let mut reply = say(
            Channel::Query,
            to,
            msg_type,
            &content,
            Some(&message.header),
        );
        if let Outcome::Say(saying) = &mut reply {
            saying.buffers = buffers;
        }
        out.push(reply);
        if message.msg_type() == "shutdown_request" {
            self.shut_engines_down(out);
            self.stop(now, out);
        }
    }

    fn on_unregistration(&mut self, now: Moment, content: &Value, out: &mut Vec<Outcome>) {
        let id: Option<EngineId> = serde_json::from_value(content["id"].clone()).ok();
        let engine = id.and_then(|id| self.registry.engines.get(&id));
        match (engine, content["uuid"].as_str()) {
            // Another engine may have the number by now.
            (Some(engine), Some(uuid)) if engine.uuid != uuid => {}
            (Some(engine), _) => {
                let uuid = engine.uuid.clone();
                self.unregister(now, &uuid, out);
            }
            (None, _) => tracing::debug!("an engine that is not registered unregisters"),
        }
    }

    fn connection(&self) -> Value {
        let engines = self.registry.engines.iter();
        let engines: Map<String, Value> = engines
            .map(|(id, engine)| (id.to_string(), Value::String(engine.uuid.clone())))
            .collect();
        json!({"status": "ok", "engines": engines})
    }

    /// The engines that a question is about; all when it names none.
    fn targets(&self, content: &Value) -> Result<Vec<EngineId>, Refusal> {
        let targets = match &content["targets"] {
            Value::Null => return Ok(self.registry.engines.keys().copied().collect()),
            Value::Array(targets) => targets.clone(),
            one => vec![one.clone()],
        };
        let known = |target: &Value| {
            let id = match target {
                Value::String(uuid) => self.registry.id(uuid)?,
                number => serde_json::from_value(number.clone()).ok()?,
            };
            self.registry.engines.contains_key(&id).then_some(id)
        };
        let bad: Vec<&Value> = targets
            .iter()
            .filter(|target| known(target).is_none())
            .collect();
        if !bad.is_empty() {
            return Err(("IndexError", format!("No Such Engine: {}", json!(bad))));
        }
        if targets.is_empty() {
            return Err(("IndexError", "No Engines Registered".to_owned()));
        }
        Ok(targets.iter().filter_map(known).collect())
    }

    fn pending(&self, uuid: &str) -> Vec<MessageId> {
        let outstanding = self.outstanding.get(uuid).into_iter().flatten();
        outstanding
            .filter(|(_, outstanding)| outstanding.channel == Channel::MuxClient)
            .map(|(id, _)| id.clone())
            .collect()
    }

    fn queue(&self, content: &Value) -> Result<Value, Refusal> {
        let verbose = content["verbose"] == true;
        // Chorus's own, for those who want to know what there is to do and not what was done.
        let short = content["completed"] == false;
        let mut reply = Map::from_iter([("status".to_owned(), json!("ok"))]);
        for id in self.targets(content)? {
            let Some(engine) = self.registry.engines.get(&id) else {
                continue;
            };
            let queue = self.pending(&engine.uuid);
            let tasks = self.scheduler.running(engine.uuid.as_bytes());
            let state = if verbose && short {
                json!({"queue": queue, "tasks": tasks.collect::<Vec<_>>()})
            } else if verbose {
                json!({"queue": queue, "completed": engine.completed, "tasks": tasks.collect::<Vec<_>>()})
            } else {
                json!({"queue": queue.len(), "completed": engine.completed_count, "tasks": tasks.len()})
            };
            reply.insert(id.to_string(), state);
        }
        let unassigned = if verbose {
            json!(self.scheduler.unassigned())
        } else {
            json!(self.scheduler.unassigned_count())
        };
        reply.insert("unassigned".to_owned(), unassigned);
        // Of all tasks that have not ended, with an engine or without.
        reply.insert("task_bytes".to_owned(), json!(self.scheduler.bytes()));
        Ok(Value::Object(reply))
    }

    fn load(&self, content: &Value) -> Result<Value, Refusal> {
        let mut reply = Map::from_iter([("status".to_owned(), json!("ok"))]);
        for id in self.targets(content)? {
            if let Some(engine) = self.registry.engines.get(&id) {
                let tasks = self.scheduler.load(engine.uuid.as_bytes());
                let load = self.pending(&engine.uuid).len() + tasks;
                reply.insert(id.to_string(), json!(load));
            }
        }
        Ok(Value::Object(reply))
    }

    fn result(&self, content: &Value) -> (&'static str, Value, Vec<Bytes>) {
        let status_only = content["status_only"] == true;
        let mut ids = ids(&content["msg_ids"]);
        ids.sort();
        ids.dedup();
        let (mut pending, mut completed) = (Vec::new(), Vec::new());
        let mut reply = Map::from_iter([("status".to_owned(), json!("ok"))]);
        let mut buffers = Vec::new();
        for id in ids {
            let Some(record) = self.results.get(&id.0) else {
                let error = hub_error("KeyError", format!("No such message: {id}"));
                return ("result_reply", error, Vec::new());
            };
            match &record.result {
                None => pending.push(id),
                Some(result) => {
                    if !status_only {
                        reply.insert(id.to_string(), record.reply());
                        buffers.extend(result.buffers.iter().cloned());
                    }
                    completed.push(id);
                }
            }
        }
        reply.insert("pending".to_owned(), json!(pending));
        reply.insert("completed".to_owned(), json!(completed));
        ("result_reply", Value::Object(reply), buffers)
    }

    fn database(&self, content: &Value) -> Answer {
        let empty = Map::new();
        let query = content["query"].as_object().unwrap_or(&empty);
        let found = self.results.find(query);
        let found = found.map_err(|reason| ("KeyError", reason))?;
        let keys: Option<Vec<String>> = serde_json::from_value(content["keys"].clone()).ok();
        let wants = |name: &str| {
            let keys = keys.as_ref();
            keys.is_some_and(|keys| keys.iter().any(|key| key == name))
        };
        let (mut records, mut buffers) = (Vec::new(), Vec::new());
        let (mut lengths, mut result_lengths) = (Vec::new(), Vec::new());
        for (id, mut value) in found {
            let Some(record) = self.results.get(&id.0) else {
                continue;
            };
            if let (Some(keys), Value::Object(map)) = (&keys, &mut value) {
                map.retain(|key, _| key == "msg_id" || keys.contains(key));
            }
            records.push(value);
            if wants("buffers") {
                lengths.push(record.request.buffers().len());
                buffers.extend(record.request.buffers().iter().cloned());
            }
            if wants("result_buffers") {
                let result = record.result.as_ref().map_or(&[][..], |it| &it.buffers);
                result_lengths.push(result.len());
                buffers.extend(result.iter().cloned());
            }
        }
        let content = json!({
            "status": "ok",
            "records": records,
            "buffer_lens": wants("buffers").then_some(lengths),
            "result_buffer_lens": wants("result_buffers").then_some(result_lengths),
        });
        Ok(("db_reply", content, buffers))
    }

    fn purge(&mut self, content: &Value) -> Value {
        if content["msg_ids"] == "all" {
            self.results.purge(|_, record| record.result.is_some());
            return json!({"status": "ok"});
        }
        let ids = ids(&content["msg_ids"]);
        let pending = ids.iter().find(|id| {
            let record = self.results.get(&id.0);
            record.is_some_and(|record| record.result.is_none())
        });
        if let Some(id) = pending {
            return hub_error("IndexError", format!("msg pending: {:?}", id.0));
        }
        let engines: Vec<EngineId> =
            serde_json::from_value(content["engine_ids"].clone()).unwrap_or_default();
        let mut uuids = Vec::new();
        for id in engines {
            match self.registry.engines.get(&id) {
                Some(engine) => uuids.push(engine.uuid.clone()),
                None => return hub_error("IndexError", format!("No such engine: {id}")),
            }
        }
        let ids: HashSet<MessageId> = ids.into_iter().collect();
        self.results.purge(|id, record| {
            let engine = record.engine.as_ref();
            ids.contains(id)
                || (record.result.is_some()
                    && engine
                        .is_some_and(|engine| uuids.iter().any(|uuid| engine == uuid.as_bytes())))
        });
        json!({"status": "ok"})
    }

    fn resubmit(&mut self, now: Moment, content: &Value, out: &mut Vec<Outcome>) -> Value {
        let ids = ids(&content["msg_ids"]);
        let missing: Vec<_> = ids
            .iter()
            .filter(|id| self.results.get(&id.0).is_none())
            .collect();
        if !missing.is_empty() {
            return hub_error("KeyError", format!("No such msg(s): {}", json!(missing)));
        }
        let mut resubmitted = Map::new();
        for id in &ids {
            self.resubmissions += 1;
            let new = MessageId::from(format!("{id}-again-{}", self.resubmissions));
            if let Some(message) = self.again(id, &new, now) {
                out.push(Outcome::Resubmit(Box::new(message)));
                self.results.resubmit(id, new.clone());
                resubmitted.insert(id.to_string(), json!(new));
            }
        }
        json!({"status": "ok", "resubmitted": resubmitted})
    }
}

fn plain(msg_type: &'static str) -> impl FnOnce(Value) -> (&'static str, Value, Vec<Bytes>) {
    move |content| (msg_type, content, Vec::new())
}

/// The ids that a request names: one, many or none.
pub(super) fn ids(value: &Value) -> Vec<MessageId> {
    match value {
        Value::String(one) => vec![MessageId::from(&**one)],
        many => serde_json::from_value(many.clone()).unwrap_or_default(),
    }
}
