//! The tasks that are ready and wait for an engine: first come first served for each client, and clients in turn.
//!
//! A task that may run anywhere waits in one place; a restricted one waits at each engine that may run it. So an engine with room
//! finds its next task without looking at those it may not run.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;

use super::engines::EngineKey;
use super::task::TaskNumber;

/// A client, as long as it has tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ClientKey(u64);

/// Where a ready task may run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Where {
    Anywhere,
    /// At least one, all of them there.
    Among(BTreeSet<EngineKey>),
}

#[derive(Debug)]
struct Client {
    identity: Bytes,
    /// When it was served last; who was served longest ago is next.
    served: u64,
    /// Its tasks that have not ended, and their bytes.
    tasks: usize,
    bytes: u64,
    anywhere: BTreeSet<TaskNumber>,
    at: BTreeMap<EngineKey, BTreeSet<TaskNumber>>,
    /// Tasks that are not ready.
    blocked: BTreeSet<TaskNumber>,
}

/// Clients by when they were served.
type Turns = BTreeSet<(u64, ClientKey)>;

/// All clients and what waits for them.
#[derive(Debug, Default)]
pub(super) struct Queues {
    clients: HashMap<ClientKey, Client>,
    by_identity: HashMap<Bytes, ClientKey>,
    /// Clients with tasks that may run anywhere.
    anywhere: Turns,
    /// Clients with tasks that may run there among other places.
    at: HashMap<EngineKey, Turns>,
    served: u64,
    next: u64,
    /// Bytes of all tasks that have not ended.
    pub(super) bytes: u64,
}

impl Queues {
    /// The client's bytes so far.
    pub(super) fn held(&self, identity: &Bytes) -> u64 {
        let client = self.by_identity.get(identity);
        client
            .and_then(|key| self.clients.get(key))
            .map_or(0, |client| client.bytes)
    }

    /// A client has one more task.
    pub(super) fn enter(&mut self, identity: &Bytes, bytes: u64) -> ClientKey {
        let key = match self.by_identity.get(identity) {
            Some(key) => *key,
            None => {
                let key = ClientKey(self.next);
                self.next += 1;
                // A frame shares its memory with the message that it came in.
                let identity = Bytes::copy_from_slice(identity);
                self.by_identity.insert(identity, key);
                key
            }
        };
        let served = self.served;
        let client = self.clients.entry(key).or_insert_with(|| Client {
            identity: Bytes::copy_from_slice(identity),
            served,
            tasks: 0,
            bytes: 0,
            anywhere: BTreeSet::new(),
            at: BTreeMap::new(),
            blocked: BTreeSet::new(),
        });
        client.tasks += 1;
        client.bytes += bytes;
        self.bytes += bytes;
        key
    }

    /// One of a client's tasks has ended; it waits nowhere any more.
    pub(super) fn exit(&mut self, key: ClientKey, bytes: u64) {
        self.bytes -= bytes;
        let Some(client) = self.clients.get_mut(&key) else {
            return;
        };
        client.tasks -= 1;
        client.bytes -= bytes;
        if client.tasks == 0
            && let Some(client) = self.clients.remove(&key)
        {
            self.by_identity.remove(&client.identity);
        }
    }

    pub(super) fn block(&mut self, key: ClientKey, task: TaskNumber) {
        if let Some(client) = self.clients.get_mut(&key) {
            client.blocked.insert(task);
        }
    }

    pub(super) fn unblock(&mut self, key: ClientKey, task: TaskNumber) {
        if let Some(client) = self.clients.get_mut(&key) {
            client.blocked.remove(&task);
        }
    }

    pub(super) fn push(&mut self, key: ClientKey, task: TaskNumber, places: &Where) {
        let Some(client) = self.clients.get_mut(&key) else {
            return;
        };
        let turn = (client.served, key);
        match places {
            Where::Anywhere => {
                client.anywhere.insert(task);
                self.anywhere.insert(turn);
            }
            Where::Among(engines) => {
                for engine in engines {
                    client.at.entry(*engine).or_default().insert(task);
                    self.at.entry(*engine).or_default().insert(turn);
                }
            }
        }
    }

    pub(super) fn remove(&mut self, key: ClientKey, task: TaskNumber, places: &Where) {
        let Some(client) = self.clients.get_mut(&key) else {
            return;
        };
        let turn = (client.served, key);
        match places {
            Where::Anywhere => {
                client.anywhere.remove(&task);
                if client.anywhere.is_empty() {
                    self.anywhere.remove(&turn);
                }
            }
            Where::Among(engines) => {
                for engine in engines {
                    let Some(tasks) = client.at.get_mut(engine) else {
                        continue;
                    };
                    tasks.remove(&task);
                    if !tasks.is_empty() {
                        continue;
                    }
                    client.at.remove(engine);
                    if let Some(turns) = self.at.get_mut(engine) {
                        turns.remove(&turn);
                        if turns.is_empty() {
                            self.at.remove(engine);
                        }
                    }
                }
            }
        }
    }

    /// What an engine with room is to run next. It stays where it is.
    pub(super) fn next_for(&self, engine: EngineKey) -> Option<TaskNumber> {
        let here = self.at.get(&engine).and_then(BTreeSet::first);
        let (_, key) = match (self.anywhere.first(), here) {
            (Some(one), Some(other)) => one.min(other),
            (one, other) => one.or(other)?,
        };
        let client = self.clients.get(key)?;
        let here = client.at.get(&engine).and_then(BTreeSet::first);
        match (client.anywhere.first(), here) {
            (Some(one), Some(other)) => Some(*one.min(other)),
            (one, other) => one.or(other).copied(),
        }
    }

    /// A client's task was given to an engine: the others come first now.
    pub(super) fn serve(&mut self, key: ClientKey) {
        self.served += 1;
        let Some(client) = self.clients.get_mut(&key) else {
            return;
        };
        let (old, new) = ((client.served, key), (self.served, key));
        client.served = self.served;
        if self.anywhere.remove(&old) {
            self.anywhere.insert(new);
        }
        for engine in client.at.keys() {
            if let Some(turns) = self.at.get_mut(engine) {
                turns.remove(&old);
                turns.insert(new);
            }
        }
    }

    /// The tasks that wait for this engine among others.
    pub(super) fn waiting_at(&self, engine: EngineKey) -> Vec<TaskNumber> {
        let clients = self.at.get(&engine).into_iter().flatten();
        let mut tasks: Vec<TaskNumber> = clients
            .filter_map(|(_, key)| self.clients.get(key)?.at.get(&engine))
            .flatten()
            .copied()
            .collect();
        tasks.sort_unstable();
        tasks
    }

    /// A client's tasks that no engine has.
    pub(super) fn waiting_of(&self, identity: &[u8]) -> BTreeSet<TaskNumber> {
        let client = self.by_identity.get(identity);
        let Some(client) = client.and_then(|key| self.clients.get(key)) else {
            return BTreeSet::new();
        };
        let here = client.at.values().flatten();
        let all = client.anywhere.iter().chain(&client.blocked).chain(here);
        all.copied().collect()
    }

    #[cfg(test)]
    pub(super) fn sanity_check(&self) {
        let mut anywhere = Turns::new();
        let mut at: HashMap<EngineKey, Turns> = HashMap::new();
        for (key, client) in &self.clients {
            assert!(client.tasks > 0);
            assert_eq!(self.by_identity.get(&client.identity), Some(key));
            if !client.anywhere.is_empty() {
                anywhere.insert((client.served, *key));
            }
            for (engine, tasks) in &client.at {
                assert!(!tasks.is_empty());
                at.entry(*engine).or_default().insert((client.served, *key));
            }
        }
        assert_eq!(self.by_identity.len(), self.clients.len());
        assert_eq!((anywhere, at), (self.anywhere.clone(), self.at.clone()));
        let bytes: u64 = self.clients.values().map(|client| client.bytes).sum();
        assert_eq!(bytes, self.bytes);
    }

    /// Tasks that have not ended, and where ready ones wait.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.clients.values().map(|client| client.tasks).sum()
    }
}
