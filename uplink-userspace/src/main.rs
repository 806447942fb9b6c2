//! The `uplink` program. Everything is in the library.

fn main() -> std::process::ExitCode {
    uplink_userspace::cli::main()
}
