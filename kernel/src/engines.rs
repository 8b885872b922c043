//! placeholder
use magics::cell::Code;
use magics::run::{Cluster, How, Run};
use magics::{EngineId, Failure};
#[derive(Debug)]
pub(crate) struct Engines;
impl Engines {
    pub(crate) fn new(_: std::path::PathBuf) -> Self {
        Engines
    }
    pub(crate) fn known_ids(&self) -> Vec<EngineId> {
        Vec::new()
    }
    pub(crate) async fn shutdown(&mut self) {}
}
fn no() -> Failure {
    Failure::new("no", "no")
}
impl magics::Engines for Engines {
    async fn ids(&mut self) -> Result<Option<Vec<EngineId>>, Failure> {
        Ok(None)
    }
    async fn execute(&mut self, _: &[EngineId], _: &Code, _: How) -> Result<Run, Failure> {
        Err(no())
    }
    async fn signal(&mut self, _: &[EngineId], _: magics::options::Signal) -> Result<(), Failure> {
        Err(no())
    }
    async fn start(&mut self, _: Option<u32>) -> Result<Cluster, Failure> {
        Err(no())
    }
    async fn stop(&mut self) -> Result<(), Failure> {
        Err(no())
    }
    async fn scale(&mut self, _: u32) -> Result<Cluster, Failure> {
        Err(no())
    }
    async fn restart(&mut self) -> Result<Cluster, Failure> {
        Err(no())
    }
    async fn status(&mut self) -> Result<Option<Cluster>, Failure> {
        Ok(None)
    }
}
