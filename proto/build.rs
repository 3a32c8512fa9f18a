//! Generates the Rust code of the protocols with a protobuf compiler written in Rust, so that
//! no system package is needed.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["helios/agent/v1/agent.proto"], ["proto"])?;
    // The descriptor set is what the compatibility test compares with the committed one.
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".helios.agent.v1.Output.data")
        .bytes(".helios.agent.v1.PutChunk.data")
        .bytes(".helios.agent.v1.GetChunk.data")
        .compile_fds(descriptors)?;
    tonic_prost_build::configure().compile_fds(protox::compile(["helios/machine/v1/machine.proto"], ["proto"])?)?;
    Ok(())
}
