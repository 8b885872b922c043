//! Which request goes to which worker, and when workers are started and ended.

use std::collections::HashMap;
use std::time::Duration;

use super::{Core, Effect, Request, RequestId, START_ATTEMPTS, State, Worker, WorkerId};
use crate::compile_service::message::WorkerRequest;

/// How long a worker's move is remembered.
const MOVE_MEMORY: Duration = Duration::from_secs(60);

fn is_own(worker: &Worker, request: &Request) -> bool {
    worker.affinity.as_deref() == Some(request.affinity.as_str())
}

impl Core {
    /// Gives requests to workers, oldest first, and starts workers for those that want one.
    pub(super) fn dispatch(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        // By key: the requests that a worker is started for.
        let mut claims: HashMap<String, usize> = HashMap::new();
        // Workers that end leave room, for one request each.
        let mut ending = self
            .workers
            .values()
            .filter(|worker| !worker.is_live())
            .count();
        for id in self.queue.clone() {
            let Some(request) = self.requests.get(&id) else {
                continue;
            };
            if let Some(worker) = self.idle_worker(request) {
                self.queue.retain(|queued| *queued != id);
                self.assign(now, id, worker, effects);
                continue;
            }
            if !self.wants_worker(request, now) {
                continue;
            }
            let (key, repeated) = (request.key.clone(), request.repeated);
            let claimed = claims.entry(key.clone()).or_default();
            // One that starts will do for all requests that merely wait, but each repeated one needs its own.
            if !repeated && *claimed > 0 {
                continue;
            }
            *claimed += 1;
            let claimed = *claimed;
            if self.count_starting(&key) >= claimed {
                continue;
            }
            if self.workers.len() < self.limits.max_workers {
                self.start(now, key, effects);
            } else if ending > 0 {
                ending -= 1;
            } else if let Some(worker) = self.dispensable_worker(&key, repeated, now) {
                self.end(now, worker, effects);
            }
        }
        let (requests, queue) = (&self.requests, &self.queue);
        self.failed_starts.retain(|key, _| {
            let mut keys = queue.iter().filter_map(|id| requests.get(id));
            keys.any(|request| request.key == *key)
        });
    }

    /// The worker for a request: the one that served its affinity last, else the one that was busy last, so that extra workers
    /// become idle. A repeated request only takes a worker that has served nothing.
    pub(super) fn idle_worker(&self, request: &Request) -> Option<WorkerId> {
        self.workers
            .iter()
            .filter(|(_, worker)| worker.key == request.key && worker.state == State::Idle)
            .filter(|(_, worker)| !request.repeated || worker.served == 0)
            .filter(|(_, worker)| !self.is_spared(worker, request))
            .max_by_key(|(id, worker)| (is_own(worker, request), worker.since, **id))
            .map(|(id, _)| *id)
    }

    /// Whether another worker is to be started for a request, since this one had to move a while ago, and would have to move back later.
    fn is_spared(&self, worker: &Worker, request: &Request) -> bool {
        let moved = worker
            .moved
            .is_some_and(|moved| self.last_event < moved + MOVE_MEMORY);
        moved
            && !is_own(worker, request)
            && !request.is_minor
            && (self.workers.len() < self.limits.max_workers
                || self.count_starting(&request.key) > 0)
            && !self.failed_starts.contains_key(&request.key)
    }

    fn assign(
        &mut self,
        now: Duration,
        id: RequestId,
        worker: WorkerId,
        effects: &mut Vec<Effect>,
    ) {
        let (Some(request), Some(it)) = (self.requests.get(&id), self.workers.get_mut(&worker))
        else {
            return;
        };
        it.enter(State::Busy(id), now);
        if !request.is_minor {
            it.affinity = Some(request.affinity.clone());
        }
        let message = WorkerRequest::Request {
            id: id.0,
            payload: request.payload.clone(),
        };
        effects.push(Effect::ToWorker(worker, message));
    }

    /// When a queued request has waited long enough for a busy worker. `None` when it does not wait for one alone.
    pub(super) fn patience_ends(&self, request: &Request) -> Option<Duration> {
        let gave_up = |key| {
            self.failed_starts
                .get(key)
                .is_some_and(|it| *it >= START_ATTEMPTS)
        };
        if request.repeated
            || request.is_minor
            || self.count_starting(&request.key) > 0
            || gave_up(&request.key)
        {
            return None;
        }
        // A worker that has just started gets the same time as one that was there.
        let ready = self
            .of_key(&request.key)
            .map(|worker| worker.ready.unwrap_or_default())
            .max()?;
        let abandoned = self
            .cancelled_workers()
            .filter(|(id, _)| {
                let worker = self.workers.get(id);
                worker.is_some_and(|it| it.key == request.key)
            })
            .map(|(_, cancelled)| cancelled)
            .min();
        Some(match abandoned {
            Some(cancelled) => request.came.max(cancelled) + self.limits.abandon_delay,
            None => request.came.max(ready) + self.limits.start_delay,
        })
    }

    fn wants_worker(&self, request: &Request, now: Duration) -> bool {
        request.repeated
            || !self.has_live(&request.key)
            || self
                .of_key(&request.key)
                .any(|worker| worker.state == State::Idle && self.is_spared(worker, request))
            || self
                .patience_ends(request)
                .is_some_and(|patience| now >= patience)
    }

    /// Workers whose request was cancelled, and when.
    pub(super) fn cancelled_workers(&self) -> impl Iterator<Item = (WorkerId, Duration)> {
        self.workers.iter().filter_map(|(id, worker)| {
            let State::Busy(request) = worker.state else {
                return None;
            };
            Some((*id, self.requests.get(&request)?.cancelled?))
        })
    }

    /// A worker to end so that one of `key` can start: one that is abandoned, or an idle one, rather an extra one than a key's last, rather one
    /// that was not used for long. `any`: it may be one of the same key.
    fn dispensable_worker(&self, key: &str, any: bool, now: Duration) -> Option<WorkerId> {
        let abandoned = self
            .cancelled_workers()
            .find(|(_, cancelled)| now >= *cancelled + self.limits.abandon_delay);
        if let Some((worker, _)) = abandoned {
            return Some(worker);
        }
        self.workers
            .iter()
            .filter(|(_, worker)| worker.state == State::Idle && (any || worker.key != key))
            .min_by_key(|(id, worker)| {
                let is_last = self.of_key(&worker.key).count() == 1;
                (is_last, worker.since, **id)
            })
            .map(|(id, _)| *id)
    }

    fn start(&mut self, now: Duration, key: String, effects: &mut Vec<Effect>) {
        let worker = WorkerId(self.new_id());
        self.workers.insert(
            worker,
            Worker {
                key: key.clone(),
                affinity: None,
                state: State::Starting,
                since: now,
                ready: None,
                served: 0,
                moved: None,
            },
        );
        effects.push(Effect::StartWorker { worker, key });
    }

    fn end(&mut self, now: Duration, worker: WorkerId, effects: &mut Vec<Effect>) {
        if let Some(it) = self.workers.get_mut(&worker) {
            // It was cancelled.
            if let State::Busy(request) = it.state {
                self.requests.remove(&request);
            }
            it.enter(State::Ending, now);
            effects.push(Effect::EndWorker(worker));
        }
    }

    pub(super) fn end_stuck_workers(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let stuck = self
            .cancelled_workers()
            .filter(|(_, cancelled)| now >= *cancelled + self.limits.cancel_timeout);
        let stuck: Vec<WorkerId> = stuck.map(|(worker, _)| worker).collect();
        for worker in stuck {
            self.end(now, worker, effects);
        }
    }

    /// Idle workers that are not their key's last, or whose key no client has used, while clients have used others.
    pub(super) fn extra_idle_workers(&self) -> impl Iterator<Item = (WorkerId, &Worker)> {
        let is_used = |key: &String| self.connections.values().any(|keys| keys.contains(key));
        let any_used = self.connections.values().any(|keys| !keys.is_empty());
        self.workers
            .iter()
            .filter(|(_, worker)| worker.state == State::Idle)
            .filter(move |(_, worker)| {
                self.of_key(&worker.key).count() > 1 || any_used && !is_used(&worker.key)
            })
            .map(|(id, worker)| (*id, worker))
    }

    pub(super) fn end_extra_workers(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        loop {
            let longest = self
                .extra_idle_workers()
                .min_by_key(|(id, worker)| (worker.since, *id))
                .filter(|(_, worker)| now >= worker.since + self.limits.worker_idle)
                .map(|(id, _)| id);
            let Some(worker) = longest else { return };
            self.end(now, worker, effects);
        }
    }
}
