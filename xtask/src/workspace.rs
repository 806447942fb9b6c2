//! Where things are, and the cargo that runs us.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// The paths of this checkout.
pub struct Workspace {
    /// The repository's root.
    pub root: PathBuf,
    /// Where cargo puts what it builds.
    pub target: PathBuf,
}

impl Workspace {
    /// The checkout that this program was built from.
    pub fn locate() -> Self {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = manifest
            .parent()
            .expect("xtask lies in the repository")
            .to_owned();
        let target = root.join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()));
        Self { root, target }
    }

    /// The cargo that runs us, never one that a package brought in the meantime.
    pub fn cargo(&self) -> Command {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(&self.root);
        command
    }

    /// A release binary of this workspace.
    pub fn binary(&self, name: &str) -> PathBuf {
        self.target.join("release").join(name)
    }
}
