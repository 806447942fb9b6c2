//! Running other programs.

use std::{
    env, fs,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// Has cargo start what it built by a sudo that asks nothing.
pub const SUDO_RUNNER: &str = r#"target."cfg(all())".runner = ["sudo", "-n", "-E"]"#;

/// Runs a command to its end; its failure is ours.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot run {}", line(command)))?;
    if !status.success() {
        bail!("{} failed: {status}", line(command));
    }
    Ok(())
}

/// What a command prints, or nothing if it does not run or fails.
pub fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Becomes the command.
pub fn exec(command: &mut Command) -> Result<()> {
    let error = command.exec();
    Err(error).with_context(|| format!("cannot run {}", line(command)))
}

/// The command as one would type it.
pub fn line(command: &Command) -> String {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Whether we are root. The owner of our own entry in /proc is our effective user.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|entry| entry.uid() == 0)
}

/// A program in $PATH, or where root's programs are, which a user's $PATH may lack.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let places = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    places
        .map(|place| place.join(program))
        .find(|file| file.is_file())
}

/// A command that runs as root with these variables: directly, or by a sudo that asks nothing.
pub fn as_root(program: &Path, variables: &[(&str, &Path)]) -> Result<Command> {
    if is_root() {
        let mut command = Command::new(program);
        command.envs(variables.iter().copied());
        return Ok(command);
    }
    if output(Command::new("sudo").args(["-n", "true"])).is_none() {
        bail!(
            "{} needs root: run this as root, or `sudo -v` first",
            program.display()
        );
    }
    println!("as root, by sudo: {}", program.display());
    // sudo drops our environment, so the variables travel as arguments of `env`.
    let mut command = Command::new("sudo");
    command.args(["-n", "env"]);
    command.args(
        variables
            .iter()
            .map(|(name, value)| format!("{name}={}", value.display())),
    );
    command.arg(program);
    Ok(command)
}

/// Installs Debian packages and says so.
pub fn apt_install(packages: &[&str]) -> Result<()> {
    let by_hand = format!("apt-get update && apt-get install {}", packages.join(" "));
    let Some(apt) = find("apt-get") else {
        bail!("there is no apt-get here; on Debian it would be `{by_hand}`");
    };
    let advice = || format!("as root, run `{by_hand}`");
    println!("installing by apt-get: {}", packages.join(" "));
    run(as_root(&apt, &[]).with_context(advice)?.args(["-qq", "update"])).with_context(advice)?;
    // --no-remove: better no toolchain than somebody's compiler gone.
    let options = ["-qq", "install", "-y", "--no-remove", "--no-install-recommends"];
    let quiet = [("DEBIAN_FRONTEND", Path::new("noninteractive"))];
    // Its progress goes to /dev/null, its errors come on stderr.
    run(as_root(&apt, &quiet)?
        .args(options)
        .args(packages)
        .stdout(Stdio::null()))
    .with_context(advice)
}

/// Installs the packages of those programs that are missing; each row is a program and its package.
pub fn need(programs: &[(&str, &str)]) -> Result<()> {
    let missing = programs.iter().filter(|(program, _)| find(program).is_none());
    let packages: Vec<_> = missing.map(|&(_, package)| package).collect();
    if packages.is_empty() {
        Ok(())
    } else {
        apt_install(&packages)
    }
}

/// Installs the package of a program that comes with a service which nobody here wants to run.
pub fn need_without_service(program: &str, package: &str, service: &str) -> Result<()> {
    if find(program).is_some() {
        return Ok(());
    }
    if let Some(systemctl) = find("systemctl") {
        println!("{service} is not to start: `systemctl unmask {service}` undoes that");
        run(as_root(&systemctl, &[])?.args(["mask", service]))?;
    }
    apt_install(&[package])
}
