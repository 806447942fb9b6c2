//! Finds the BPF object that `cargo xtask build` made. Without it the crate still builds, so
//! that editors and `cargo test` work anywhere; such a binary says at start what it lacks.

use std::{env, fs, path::PathBuf};

fn main() {
    println!("cargo:rerun-if-env-changed=UPLINK_BPF_OBJECT");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("uplink.bpf.o");
    match env::var_os("UPLINK_BPF_OBJECT") {
        Some(object) => {
            let object = PathBuf::from(object);
            println!("cargo:rerun-if-changed={}", object.display());
            fs::copy(&object, &out).unwrap_or_else(|e| panic!("cannot copy {}: {e}", object.display()));
        }
        None => fs::write(&out, []).unwrap_or_else(|e| panic!("cannot write {}: {e}", out.display())),
    }
}
