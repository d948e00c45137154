//! Prints the definition of `MessagingCluster` as YAML.

use std::{error::Error, io::Write as _};

fn main() -> Result<(), Box<dyn Error>> {
    std::io::stdout().write_all(crds::schema::yaml()?.as_bytes())?;
    Ok(())
}
