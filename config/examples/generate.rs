//! Rewrites the generated pages; run from anywhere in the repository (`make docs`).

fn main() -> std::io::Result<()> {
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs");
    std::fs::write(format!("{docs}/configuration.md"), oilskin_config::generated::configuration_page())?;
    std::fs::write(format!("{docs}/config.schema.json"), oilskin_config::generated::json_schema())
}
