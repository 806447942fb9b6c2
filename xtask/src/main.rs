//! `cargo xtask`: builds, runs, tests, packages and installs uplink. It runs tools and holds no product logic.

mod bench;
mod build;
mod install;
mod package;
mod run;
mod shell;
mod test;
mod toolchain;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// Builds, runs, tests and installs uplink
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the BPF object, then the daemon and the lab, in release mode
    Build,
    /// Build, then run: the built-in lab, or with --config the daemon on this host
    Run(run::Args),
    /// Check format and lints, build, and run every test (the packet and lab tests as root)
    Test(test::Args),
    /// Build, then measure what a packet costs, beside what else could route it (as root)
    Bench(bench::Args),
    /// Format the workspace
    Fmt,
    /// Build, then install the daemon, its unit, and the names for `ip route` and `ip rule`
    Install(install::Args),
    /// Build the Debian package
    Package(package::Args),
    /// Install, break, upgrade and remove the package in a virtual machine with systemd
    Vm(vm::Args),
    /// Remove what `install` put there; the configuration stays
    Uninstall(install::Place),
}

fn main() -> ExitCode {
    let workspace = Workspace::locate();
    let done = match Cli::parse().command {
        Command::Build => build::build(&workspace).map(drop),
        Command::Run(args) => run::run(&workspace, &args),
        Command::Test(args) => test::test(&workspace, &args),
        Command::Bench(args) => bench::bench(&workspace, &args),
        Command::Fmt => shell::run(workspace.cargo().args(["fmt", "--all"])),
        Command::Install(args) => install::install(&workspace, &args),
        Command::Package(args) => package::package(&workspace, &args),
        Command::Vm(args) => vm::vm(&workspace, &args),
        Command::Uninstall(place) => install::uninstall(&place),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
