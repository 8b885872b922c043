//! placeholder
pub(crate) fn main(_: cluster::compile::Arguments) -> anyhow::Result<()> {
    anyhow::bail!("not yet")
}
