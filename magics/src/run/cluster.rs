//! `%cluster`.

use std::time::Duration;

use tokio::time::timeout;

use super::px::{engines_in_words, silent};
use super::{Cluster, Engines, Magics, Notebook};
use crate::error::Error;
use crate::event::Shown;
use crate::options::{ClusterArgs, ClusterCommand};

impl Magics {
    pub(super) async fn cluster(
        &mut self,
        options: ClusterArgs,
        engines: &mut impl Engines,
        notebook: &mut impl Notebook,
    ) -> Result<(), Error> {
        let command = options.command.unwrap_or(ClusterCommand::Status);
        let text = tokio::select! {
            changed = change(&command, engines) => changed?,
            () = notebook.interrupted() => return Err(Error::Interrupted { engines: Vec::new() }),
        };
        if matches!(command, ClusterCommand::Stop | ClusterCommand::Restart) {
            // Engines that are gone define nothing.
            self.names.clear();
        }
        notebook.show(Shown::stdout(text));
        Ok(())
    }
}

/// Does it, and gives what to say then.
async fn change(command: &ClusterCommand, engines: &mut impl Engines) -> Result<String, Error> {
    match command {
        ClusterCommand::Start { n } => Ok(told(&engines.start(*n).await?)),
        ClusterCommand::Status => Ok(match status(engines).await? {
            Some(cluster) => told(&cluster),
            None => {
                "There is no cluster. `%cluster start [-n N]` starts one, and so does the first %px.\n"
                    .to_owned()
            }
        }),
        other => {
            if status(engines).await?.is_none() {
                return Err(Error::NoCluster);
            }
            match other {
                ClusterCommand::Scale { n } => Ok(told(&engines.scale(*n).await?)),
                ClusterCommand::Restart => Ok(told(&engines.restart().await?)),
                _ => Ok(format!("{}\n", engines.stop().await?)),
            }
        }
    }
}

/// A cluster with all there is to say of it.
fn told(cluster: &Cluster) -> String {
    let mut text = format!("{}\n", up(cluster));
    for detail in &cluster.details {
        text.push_str(&format!("  {detail}\n"));
    }
    text
}

async fn status(engines: &mut impl Engines) -> Result<Option<Cluster>, Error> {
    match timeout(Duration::from_secs(2), engines.status()).await {
        Ok(cluster) => Ok(cluster?),
        Err(_) => Err(silent()),
    }
}

/// `Cluster "default" is up, 2 engines: 0,1.`
pub fn up(cluster: &Cluster) -> String {
    format!(
        "Cluster \"{}\" is up, {}.",
        cluster.name,
        engines_in_words(&cluster.ids)
    )
}
