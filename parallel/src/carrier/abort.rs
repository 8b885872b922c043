//! Taking tasks back: from the scheduler where they wait, from engines where they wait, and, after an interrupt, where they run.

use crate::controller::{Connection, EngineId, Error, Posts};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;

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
    #[derive(Deserialize)]
    struct Reply {
        engines: BTreeMap<EngineId, Vec<String>>,
    }

    let content = json!({"msg_ids": ids});
    match connection
        .scheduler("abort_request", &content)
        .await?
        .parse()
    {
        Ok(Reply { engines }) => Ok(engines),
        // ipyparallel's scheduler doesn't know this, and its engines are all told.
        Err(_) => {
            let engines = connection.ids().into_iter();
            Ok(engines.map(|engine| (engine, ids.clone())).collect())
        }
    }
}
