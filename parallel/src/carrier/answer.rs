//! What programs ask, put to the cluster.

use super::abort::abort;
use crate::controller::{Connection, EngineId, Error, Lost, Posts};
use crate::wire::{Answer, EngineQueue, QueueStatus};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long engines may take to go when they were told to.
const LEAVING: Duration = Duration::from_secs(5);
/// So many ids are named in one message.
const MANY: usize = 20_000;

/// A question with what it is about, as the books know it.
#[derive(Debug)]
pub(super) enum Asked {
    Queue(Option<Vec<u32>>),
    Abort(Vec<(u64, Option<u32>)>),
    Purge(Vec<u64>),
    Shutdown { targets: Vec<u32>, controller: bool },
}

/// Asks the cluster.
pub(super) async fn answer(connection: Connection, posts: Arc<Posts>, asked: Asked) -> Answer {
    let outcome = match asked {
        Asked::Queue(targets) => queue(&connection, targets).await,
        Asked::Abort(tasks) => abort(&connection, &posts, &tasks, false)
            .await
            .map(|()| Answer::Done),
        Asked::Purge(tasks) => purge(&connection, &posts, &tasks).await,
        Asked::Shutdown {
            targets,
            controller,
        } => shutdown(&connection, &targets, controller).await,
    };
    outcome.unwrap_or_else(|error| Answer::Refused {
        reason: error.chain(),
    })
}

fn numbers(targets: &[u32]) -> Vec<EngineId> {
    targets.iter().copied().map(EngineId).collect()
}

async fn queue(connection: &Connection, targets: Option<Vec<u32>>) -> Result<Answer, Error> {
    if targets.is_none() && connection.ids().is_empty() {
        return Ok(Answer::Queue(QueueStatus::default()));
    }
    let status = connection
        .queue_status(&numbers(&targets.unwrap_or_default()), false)
        .await?;
    Ok(Answer::Queue(queues(&status)))
}

fn queues(status: &Value) -> QueueStatus {
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let mut engines: Vec<EngineQueue> = status
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(engine, queues)| {
            Some(EngineQueue {
                engine: engine.parse().ok()?,
                queue: number(&queues["queue"]),
                tasks: number(&queues["tasks"]),
                completed: number(&queues["completed"]),
            })
        })
        .collect();
    engines.sort_by_key(|queue| queue.engine);
    QueueStatus {
        engines,
        unassigned: number(&status["unassigned"]),
        bytes: number(&status["task_bytes"]),
    }
}

async fn purge(connection: &Connection, posts: &Posts, tasks: &[u64]) -> Result<Answer, Error> {
    for some in tasks.chunks(MANY) {
        let ids: Vec<String> = some.iter().map(|id| posts.id(*id)).collect();
        connection.purge(Some(&ids)).await?;
    }
    Ok(Answer::Done)
}

async fn shutdown(
    connection: &Connection,
    targets: &[u32],
    controller: bool,
) -> Result<Answer, Error> {
    if controller {
        connection.shutdown().await?;
        // Whoever asks next is to see that it has gone.
        let _ = timeout(LEAVING, connection.ended()).await;
        return Ok(Answer::Done);
    }
    let targets = numbers(targets);
    let content = json!({"restart": false});
    let told = connection
        .control(&targets, "shutdown_request", &content)
        .await;
    match told {
        Ok(_) | Err(Error::Lost(Lost::Engine(_))) => {}
        Err(error) => return Err(error),
    }
    let mut state = connection.watch();
    let gone = state.wait_for(|state| targets.iter().all(|id| !state.engines.contains_key(id)));
    let _ = timeout(LEAVING, gone).await;
    Ok(Answer::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hubs_numbers() {
        let status = json!({
            "status": "ok", "unassigned": 3, "task_bytes": 99,
            "10": {"queue": 1, "tasks": 2, "completed": 3}, "2": {"queue": 0, "tasks": 0, "completed": 0},
        });
        let queues = queues(&status);
        let ids: Vec<u32> = queues.engines.iter().map(|queue| queue.engine).collect();
        assert_eq!(ids, [2, 10]);
        assert_eq!((queues.unassigned, queues.bytes), (3, 99));
        let ten = EngineQueue {
            engine: 10,
            queue: 1,
            tasks: 2,
            completed: 3,
        };
        assert_eq!(queues.engines.last(), Some(&ten));
    }
}
