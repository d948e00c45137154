//! The dialogue in the README is what the programs say. `make readme` records it anew.

use std::{fs, path::Path};

use tests::world::World;

use crate::terminal::Terminal;

const BEGIN: &str = "<!-- dialogue -->";
const END: &str = "<!-- end of dialogue -->";

#[tokio::test]
async fn the_dialogue_in_the_readme_is_what_the_programs_say() -> anyhow::Result<()> {
    let world = World::start().await?;
    let mut ana = Terminal::open(&world, "+12025550100", "Ana").await?;
    let mut ben = Terminal::open(&world, "+12025550101", "Ben").await?;
    ana.type_line("/new +12025550101").await?;
    ana.see("== Ben ==").await?;
    ben.see("== Ana ==").await?;
    ana.type_line("Meet at the north gate?").await?;
    ana.see("you: Meet").await?;
    ben.see("Ana: Meet").await?;
    ben.type_line("On my way ☕").await?;
    ben.see("you: On my way").await?;
    ana.see("Ben: On my way").await?;
    ana.type_line("/members").await?;
    ana.see("Ana (member)").await?;
    ana.see("Ben (member)").await?;
    let (ana, ben) = (ana.quit().await?, ben.quit().await?);

    let said = format!(
        "{BEGIN}\n\n```\n$ make chat PHONE=+12025550100 ARGS=\"--name Ana\"\n{}\n```\n\n\
         ```\n$ make chat PHONE=+12025550101 ARGS=\"--name Ben\"\n{}\n```\n\n{END}",
        plain(&ana),
        plain(&ben)
    );
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = fs::read_to_string(&file)?;
    let (before, rest) = readme.split_once(BEGIN).expect("the README has a place for the dialogue");
    let (_, after) = rest.split_once(END).expect("the README has an end of the dialogue");
    let expected = format!("{before}{said}{after}");
    if readme == expected {
        return Ok(());
    }
    #[expect(clippy::disallowed_methods, reason = "`make readme` asks for it")]
    let is_recording = std::env::var("README_DIALOGUE").is_ok_and(|asked| asked == "record");
    if is_recording {
        return Ok(fs::write(&file, expected)?);
    }
    anyhow::bail!("the programs say something else: `make readme` records it\n{said}")
}

/// Without what differs from run to run: the code, and the minute.
fn plain(lines: &[String]) -> String {
    let mut plain = Vec::new();
    let mut after_code = false;
    for line in lines {
        let is_timed = line.as_bytes().get(2) == Some(&b':') && line.as_bytes().get(6) == Some(&b'#');
        plain.push(match line {
            _ if after_code => "> 123456".to_owned(),
            line if is_timed => format!("09:27{}", &line[5..]),
            line => line.clone(),
        });
        after_code = line == "code:";
    }
    plain.join("\n")
}
