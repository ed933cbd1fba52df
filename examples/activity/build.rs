//! Compiles the contract without protoc, and keeps its descriptor for reflection.

use std::path::PathBuf;

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let contract = protox::compile(["activity.proto"], ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("activity_descriptor.bin"), contract.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(contract)?;
    Ok(())
}
