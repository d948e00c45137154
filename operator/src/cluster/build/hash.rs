//! Hashes: of what a service reads when it starts, and of what a pod is made of.

use std::{collections::BTreeMap, fmt::Write as _};

use aws_lc_rs::digest::{Context, SHA256};
use serde_json::Value;

use super::environment::Environment;
use crate::cluster::validate::SecretData;

/// Bytes of a digest that are shown: enough to tell any two apart.
const SHOWN: usize = 16;

/// The hash of the settings and secrets that a process reads once.
///
/// It stands where everybody who sees the pod can read it. All of it is one digest, and the internal token, which no one
/// can guess, is always among what it is made of: so a weak password can't be found by trying.
pub(super) fn config(environment: &Environment, secrets: &BTreeMap<String, SecretData>) -> String {
    let mut context = Context::new(&SHA256);
    let mut add = |part: &[u8]| {
        // With its length, so that no two lists of parts run together to the same bytes.
        context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        context.update(part);
    };
    for (name, value) in &environment.variables {
        add(name.as_bytes());
        add(value.as_bytes());
    }
    let value =
        |secret: &str, key: &str| secrets.get(secret).and_then(|data| data.0.get(key)).map_or(&[][..], Vec::as_slice);
    for variable in &environment.secret_variables {
        add(variable.name.as_bytes());
        add(value(&variable.secret, variable.key));
    }
    for folder in &environment.folders {
        for file in folder.files.iter().filter(|file| file.is_read_once()) {
            add(folder.name.as_bytes());
            add(file.path.as_bytes());
            add(value(&file.secret, &file.key));
        }
    }
    show(context)
}

/// The hash of a pod template.
pub(super) fn template(template: &Value) -> String {
    let mut context = Context::new(&SHA256);
    context.update(template.to_string().as_bytes());
    show(context)
}

fn show(context: Context) -> String {
    context.finish().as_ref().iter().take(SHOWN).fold(String::new(), |mut text, byte| {
        // A String takes everything.
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}
