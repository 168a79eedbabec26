//! The committed code is what the `.proto` files say. `UPDATE_GENERATED=1 cargo test -p entrenar-proto --test generated`
//! writes it anew.

use std::fs;
use std::path::{Path, PathBuf};

use protox::prost::Message as _;

const CODE: &str = "entrenar.fleet.v1.rs";
const DESCRIPTORS: &str = "descriptors.bin";

fn generate(into: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = protox::compile([root.join("fleet/v1/telemetry.proto")], [root])
        .expect("the .proto files compile");
    // Comments are in the code already; without them the served descriptors stay small.
    let mut lean = files.clone();
    for file in &mut lean.file {
        file.source_code_info = None;
    }
    fs::write(into.join(DESCRIPTORS), lean.encode_to_vec()).expect("temp dir is writable");
    tonic_prost_build::configure()
        .bytes(".")
        .btree_map(".")
        .codec_path("crate::codec::SmallCodec")
        .out_dir(into)
        .compile_fds(files)
        .expect("code is generated");
}

#[test]
fn the_committed_code_is_generated_from_the_proto_files() {
    let committed = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/generated");
    let fresh = tempfile::tempdir().expect("a temp dir");
    generate(fresh.path());
    for name in [CODE, DESCRIPTORS] {
        let new = fs::read(fresh.path().join(name)).expect("it was generated");
        if std::env::var_os("UPDATE_GENERATED").is_some() {
            fs::write(committed.join(name), &new).expect("the source tree is writable");
        }
        let old = fs::read(committed.join(name)).unwrap_or_default();
        assert!(
            old == new,
            "proto/src/generated/{name} is stale: run UPDATE_GENERATED=1 cargo test -p entrenar-proto --test generated"
        );
    }
}
