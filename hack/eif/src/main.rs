//! Reads and builds enclave images with AWS's own library, for comparison.
//!
//! Usage: eif describe FILE
//!        eif build FILE KERNEL CMDLINE RAMDISK...
//!        eif sign CERTIFICATE KEY FILE KERNEL CMDLINE RAMDISK...
//!
//! All print the values of the registers as JSON. describe fails if the signature of
//! an image does not fit it. Built images are for amd64.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use aws_nitro_enclaves_image_format::defs::{EifBuildInfo, EifIdentityInfo};
use aws_nitro_enclaves_image_format::utils::eif_reader::EifReader;
use aws_nitro_enclaves_image_format::utils::{get_pcrs, EifBuilder, SignEnclaveInfo};
use serde_json::{json, Value};
use sha2::{Digest, Sha384};

fn describe(file: &str) -> Result<BTreeMap<String, String>, String> {
    let mut image = EifReader::from_eif(file.to_string())?;
    if !image.check_crc() {
        return Err("the checksum is wrong".to_string());
    }
    let signed = image.signature_section.is_some();
    let pcrs = get_pcrs(
        &mut image.image_hasher,
        &mut image.bootstrap_hasher,
        &mut image.app_hasher,
        &mut image.cert_hasher,
        Sha384::new(),
        signed,
    )?;
    if signed {
        image.get_certificate_info(pcrs.clone())?;
        if image.sign_check != Some(true) {
            return Err("the signature is for another image".to_string());
        }
    }
    Ok(pcrs)
}

fn build(
    file: &str,
    kernel: &str,
    cmdline: &str,
    ramdisks: &[String],
    signer: Option<SignEnclaveInfo>,
) -> Result<BTreeMap<String, String>, String> {
    let info = EifIdentityInfo {
        img_name: "judge".to_string(),
        img_version: "1".to_string(),
        build_info: EifBuildInfo {
            build_time: "1970-01-01T00:00:00+00:00".to_string(),
            build_tool: "eif".to_string(),
            build_tool_version: "1".to_string(),
            img_os: "linux".to_string(),
            img_kernel: "unknown".to_string(),
        },
        docker_info: Value::Null,
        custom_info: Value::Null,
    };
    let mut builder = EifBuilder::new(Path::new(kernel), cmdline.to_string(), signer, Sha384::new(), 0, info);
    for ramdisk in ramdisks {
        builder.add_ramdisk(Path::new(ramdisk));
    }
    let mut out = File::create(file).map_err(|e| e.to_string())?;
    Ok(builder.write_to(&mut out))
}

fn main() -> Result<(), String> {
    let args: Vec<String> = std::env::args().collect();
    let pcrs = match args.get(1).map(String::as_str) {
        Some("describe") if args.len() == 3 => describe(&args[2])?,
        Some("build") if args.len() > 5 => build(&args[2], &args[3], &args[4], &args[5..], None)?,
        Some("sign") if args.len() > 7 => {
            let signer = SignEnclaveInfo::new(&args[2], &args[3])?;
            build(&args[4], &args[5], &args[6], &args[7..], Some(signer))?
        }
        _ => return Err("usage: eif describe FILE, eif build FILE KERNEL CMDLINE RAMDISK..., or eif sign CERTIFICATE KEY FILE KERNEL CMDLINE RAMDISK...".to_string()),
    };
    println!("{}", json!({ "Measurements": pcrs }));
    Ok(())
}
