//! Files that are committed and made from something else: written, or compared with what they should be.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// Where generated files go, and whether they are written at all.
pub(crate) struct Generated {
    root: PathBuf,
    check: bool,
    command: &'static str,
}

impl Generated {
    /// Files below the workspace, made by `command`; with `check` they are only compared.
    pub(crate) fn new(command: &'static str, check: bool) -> Self {
        Self { root: root(), check, command }
    }

    /// Writes `text` to `path`, or fails where the file holds something else.
    pub(crate) fn put(&self, path: impl AsRef<Path>, text: &str) -> anyhow::Result<()> {
        let path = self.root.join(path);
        let shown = path.display();
        let committed = std::fs::read_to_string(&path).ok();
        if committed.as_deref() == Some(text) {
            return Ok(());
        }
        if self.check {
            bail!("{shown} is not up to date: run `{}` and commit the result", self.command);
        }
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        }
        std::fs::write(&path, text).with_context(|| format!("writing {shown}"))?;
        println!("wrote {shown}");
        Ok(())
    }

    /// Fails where `dir` holds a file with `extension` that is not among `names`: made once, and forgotten.
    pub(crate) fn nothing_else(&self, dir: &str, extension: &str, names: &[String]) -> anyhow::Result<()> {
        let dir = self.root.join(dir);
        for entry in std::fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.ends_with(extension) && !names.contains(&name) {
                bail!("{} is made by nobody: remove it", dir.join(name).display());
            }
        }
        Ok(())
    }

    /// The text of a file that is an input.
    pub(crate) fn read(&self, path: &str) -> anyhow::Result<String> {
        let path = self.root.join(path);
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }
}

/// The workspace's directory.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}
