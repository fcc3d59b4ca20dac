//! docs/metrics.md, made from the places where metrics are declared.

use herald_runtime::metrics::table;

use crate::generated::Generated;

const HEAD: &str = "# Metrics

<!-- Made from the declarations in controller/src/metrics.rs, speaker/src/metrics.rs and runtime/src/metrics.rs by
`cargo xtask metrics`; edit those. -->

Both processes serve `/metrics` in the OpenMetrics text format on their admin address: the controller on port 7480, the
speaker on port 7481, on loopback unless `--admin-addr` says more. (The chart lets the controller listen on its pod's
address as well, and the speakers on their node's with `speaker.adminListen: NodeIP`.) A series is there as long as what it tells of: that of
a deleted pool, of an address that is no longer held here or of a peer that is forgotten disappears. Names and labels in
these tables are tested; none is renamed or loses a label without a line in CHANGELOG.md.
";

pub(crate) fn run(check: bool) -> anyhow::Result<()> {
    let controller = table(&herald_controller::metrics::declared());
    let speaker = table(&herald_speaker::metrics::declared());
    let page = format!(
        "{HEAD}\n## herald-controller\n\n{controller}\n## herald-speaker\n\nSamples without a label `node` are of the node \
         that the speaker runs on.\n\n{speaker}"
    );
    Generated::new("cargo xtask metrics", check).put("docs/metrics.md", &page)
}
