//! Taking tasks back: from the scheduler where they wait, from engines where they wait, and, after an interrupt, where they run.

use crate::controller::{Connection, EngineId, Error, Posts};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

/// Tasks and what is asked about them go by different sockets: this may be asked before the last of them have come. Some may have ended
/// meanwhile, so that it isn't known how many are to be found.
const ROUNDS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(5);

/// Aborts tasks: those without an engine are the scheduler's. `running`: also those that have begun.
///
/// # Errors
/// When the cluster can't be asked.
pub(super) async fn abort(
    connection: &Connection,
    posts: &Posts,
    tasks: &[(u64, Option<u32>)],
    running: bool,
) -> Result<(), Error> {
    let mut at: BTreeMap<EngineId, Vec<String>> = BTreeMap::new();
    let mut balanced = Vec::new();
    for (id, engine) in tasks {
        match engine {
            Some(engine) => at.entry(EngineId(*engine)).or_default().push(posts.id(*id)),
            None => balanced.push(posts.id(*id)),
        }
    }
    if !balanced.is_empty() {
        for (engine, ids) in given_out(connection, balanced).await? {
            at.entry(engine).or_default().extend(ids);
        }
    }
    for (engine, ids) in at {
        let content = json!({"msg_ids": ids, "running": running});
        match connection
            .control(&[engine], "abort_request", &content)
            .await
        {
            // What it had has ended with it.
            Ok(_) | Err(Error::Lost(_) | Error::NoEngine { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Takes tasks back from the scheduler; gives those that engines have.
async fn given_out(
    connection: &Connection,
    ids: Vec<String>,
) -> Result<BTreeMap<EngineId, Vec<String>>, Error> {
    let wanted: HashSet<String> = ids.iter().cloned().collect();
    let mut aborted = 0;
    let mut given = BTreeMap::new();
    for round in 0..ROUNDS {
        if round > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        let asked = connection
            .hub("abort_request", &json!({"msg_ids": ids}))
            .await;
        match asked {
            Ok(reply) => {
                let reply: Value = reply.parse().unwrap_or_default();
                aborted += reply["aborted"].as_u64().unwrap_or_default();
            }
            // ipyparallel's hub doesn't know this, and its engines are all told.
            Err(Error::Refused { .. }) => {
                let engines = connection.ids().into_iter();
                return Ok(engines.map(|engine| (engine, ids.clone())).collect());
            }
            Err(error) => return Err(error),
        }
        given = at_engines(connection, &wanted).await?;
        let there: usize = given.values().map(Vec::len).sum();
        if usize::try_from(aborted).unwrap_or(usize::MAX) + there >= ids.len() {
            break;
        }
    }
    Ok(given)
}

/// Those of the tasks that engines have.
async fn at_engines(
    connection: &Connection,
    ids: &HashSet<String>,
) -> Result<BTreeMap<EngineId, Vec<String>>, Error> {
    let content = json!({"verbose": true, "completed": false});
    let reply = connection.hub("queue_request", &content).await;
    let status: Value = match reply {
        Ok(reply) => reply.parse().unwrap_or_default(),
        // There are no engines.
        Err(Error::Refused { .. }) => return Ok(BTreeMap::new()),
        Err(error) => return Err(error),
    };
    let engines = status.as_object().into_iter().flatten();
    Ok(engines
        .filter_map(|(engine, queues)| {
            let engine = EngineId(engine.parse().ok()?);
            let tasks = queues["tasks"].as_array()?;
            let theirs: Vec<String> = tasks
                .iter()
                .filter_map(Value::as_str)
                .filter(|id| ids.contains(*id))
                .map(str::to_owned)
                .collect();
            (!theirs.is_empty()).then_some((engine, theirs))
        })
        .collect())
}
