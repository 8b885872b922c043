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
        let changed = tokio::select! {
            changed = change(&command, engines) => changed?,
            () = notebook.interrupted() => return Err(Error::Interrupted { engines: Vec::new() }),
        };
        if matches!(command, ClusterCommand::Stop | ClusterCommand::Restart) {
            // Engines that are gone define nothing.
            self.names.clear();
        }
        let text = match (&command, changed) {
            (ClusterCommand::Stop, _) => "The cluster is stopped.\n".to_owned(),
            (_, Some(cluster)) => {
                let mut text = format!("{}\n", up(&cluster));
                for detail in &cluster.details {
                    text.push_str(&format!("  {detail}\n"));
                }
                text
            }
            (_, None) => {
                "There is no cluster. `%cluster start [-n N]` starts one, and so does the first %px.\n"
                    .to_owned()
            }
        };
        notebook.show(Shown::stdout(text));
        Ok(())
    }
}

async fn change(
    command: &ClusterCommand,
    engines: &mut impl Engines,
) -> Result<Option<Cluster>, Error> {
    match command {
        ClusterCommand::Start { n } => Ok(Some(engines.start(*n).await?)),
        ClusterCommand::Status => status(engines).await,
        other => {
            if status(engines).await?.is_none() {
                return Err(Error::NoCluster);
            }
            match other {
                ClusterCommand::Scale { n } => Ok(Some(engines.scale(*n).await?)),
                ClusterCommand::Restart => Ok(Some(engines.restart().await?)),
                _ => {
                    engines.stop().await?;
                    Ok(None)
                }
            }
        }
    }
}

async fn status(engines: &mut impl Engines) -> Result<Option<Cluster>, Error> {
    match timeout(Duration::from_secs(2), engines.status()).await {
        Ok(cluster) => Ok(cluster?),
        Err(_) => Err(silent()),
    }
}

/// `Cluster "default" is up, 2 engines: 0,1.`
pub(super) fn up(cluster: &Cluster) -> String {
    format!(
        "Cluster \"{}\" is up, {}.",
        cluster.name,
        engines_in_words(&cluster.ids)
    )
}
