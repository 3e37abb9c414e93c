//! `oilskin rewrap`: tokens in files become tokens of the active key version, so that old versions can be destroyed.

mod input;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use oilskin_config::{BindPlace, Config, Vars};
use serde_json::json;

use self::input::{Checkpoint, Input, Piece};
use super::{Exit, Printer, read_file};
use crate::Offline;

/// How often progress is told, and a checkpoint written.
const EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(super) struct Rewrap {
    /// The file, or `-` for stdin.
    file: PathBuf,
    /// Where the result goes; stdout unless given.
    #[arg(long)]
    out: Option<PathBuf>,
    /// What the file is; by its name unless given: `.json` is one document, anything else has one on each line.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// The route whose rules say where tokens are; not needed where only one has rules.
    #[arg(long)]
    route: Option<String>,
    /// The tenant of all records.
    #[arg(long)]
    tenant: Option<String>,
    /// Only count.
    #[arg(long)]
    dry_run: bool,
    /// Lines a second, at most.
    #[arg(long)]
    rate: Option<u32>,
    /// A file that says how far it came; with it a run that was stopped goes on. Needs --out.
    #[arg(long, requires = "out")]
    checkpoint: Option<PathBuf>,
    /// Leave lines as they are that hold a token which does not open, instead of ending; the exit code says that there were some.
    #[arg(long)]
    keep_going: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One document.
    Json,
    /// One document on each line.
    Ndjson,
}

pub(super) fn run(words: &Rewrap, vars: &Vars, printer: &Printer) -> Exit {
    let config = match oilskin_config::parse(vars, &read_file) {
        Ok(config) => config,
        Err(problems) => return printer.problems(&problems),
    };
    printer.warns(&config.warnings);
    match work(words, &config, printer) {
        Ok(done) => done.told(words, printer),
        Err(error) => printer.failed(error),
    }
}

/// What came of it.
#[derive(Debug, Default)]
struct Done {
    documents: u64,
    changed: u64,
    renewed: u64,
    tokens: u64,
    failed: u64,
}

impl Done {
    fn told(&self, words: &Rewrap, printer: &Printer) -> Exit {
        let Self { documents, changed, renewed, tokens, failed } = self;
        let would = if words.dry_run { "would become" } else { "became" };
        let text = format!(
            "{documents} documents: {renewed} tokens in {changed} of them {would} new ones, {failed} failed; {tokens} tokens in all"
        );
        let document = json!({"ok": *failed == 0, "documents": documents, "changed": changed, "renewed": renewed, "tokens": tokens, "failed": failed, "dry_run": words.dry_run});
        // Stdout may hold the result itself.
        match words.out.is_some() || words.dry_run {
            true => printer.result(text, &document),
            false => printer.progress(text),
        }
        if *failed == 0 { Exit::Done } else { Exit::Failed }
    }
}

fn work(words: &Rewrap, config: &Config, printer: &Printer) -> Result<Done, String> {
    let offline = Offline::new(config, route(words, config)?).map_err(|error| error.to_string())?;
    let whole = match words.format {
        Some(format) => format == Format::Json,
        None => words.file.extension().is_some_and(|extension| extension == "json"),
    };
    let checkpoint = words.checkpoint.as_deref().map(Checkpoint::read).transpose()?.flatten();
    let mut input = Input::open(&words.file, whole, checkpoint.as_ref())?;
    let mut output = Output::open(words, checkpoint.as_ref())?;
    let mut pass = Pass { words, offline, tenant: words.tenant.as_deref().map(Into::into), done: Done::default() };
    let (begun, mut told) = (Instant::now(), Instant::now());
    if whole {
        pass.document(&mut input, &mut output)?;
    } else {
        while let Some(line) = input.line()? {
            pass.line(&line, input.lines(), &mut output)?;
            if let Some(rate) = words.rate {
                wait_until(begun + Duration::from_secs_f64(pass.done.documents as f64 / f64::from(rate.max(1))));
            }
            if told.elapsed() >= EVERY {
                told = Instant::now();
                printer.progress(format_args!("{} lines, {} tokens renewed", input.lines(), pass.done.renewed));
                pass.mark(&input, &mut output)?;
            }
        }
    }
    output.finish()?;
    if let Some(path) = &words.checkpoint {
        let _ = std::fs::remove_file(path);
    }
    Ok(pass.done)
}

#[expect(clippy::disallowed_methods, reason = "a command with one thread, which is to be slow here")]
fn wait_until(due: Instant) {
    std::thread::sleep(due.saturating_duration_since(Instant::now()));
}

/// The route whose rules are meant.
fn route(words: &Rewrap, config: &Config) -> Result<usize, String> {
    let phases = |route: &oilskin_config::Route| [route.request.rules.clone(), route.response.rules.clone()].concat();
    let mut with_rules = config.routes.iter().enumerate().filter(|(_, route)| !phases(route).is_empty());
    let found = match &words.route {
        Some(name) => with_rules.find(|(_, route)| route.name == *name),
        None => with_rules.next().filter(|_| with_rules.next().is_none()),
    };
    let (at, route) = found.ok_or("say --route NAME: one that has rules, and none or several have")?;
    let by_path = |place: &BindPlace| matches!(place, BindPlace::Path(_));
    let binds = phases(route).iter().any(|rule| rule.bind.iter().any(|bind| bind.places.iter().all(by_path)));
    match binds {
        true => Err(format!("route {}: a rule binds to the path alone, which a file does not have", route.name)),
        false => Ok(at),
    }
}

struct Pass<'a> {
    words: &'a Rewrap,
    offline: Offline,
    tenant: Option<Arc<str>>,
    done: Done,
}

impl Pass<'_> {
    /// The whole input is one document, of any size.
    fn document(&mut self, input: &mut Input, output: &mut Output) -> Result<(), String> {
        let mut renewing = self.offline.rewrap(self.tenant.clone()).map_err(|error| error.to_string())?;
        let mut out = Vec::new();
        while let Some(Piece(piece)) = input.piece()? {
            renewing.push(piece, &mut out).map_err(|error| error.to_string())?;
            output.write(&out)?;
            out.clear();
        }
        let (renewed, tokens) = renewing.finish(&mut out).map_err(|error| error.to_string())?;
        output.write(&out)?;
        self.done = Done { documents: 1, changed: u64::from(renewed > 0), renewed, tokens, failed: 0 };
        Ok(())
    }

    fn line(&mut self, line: &[u8], number: u64, output: &mut Output) -> Result<(), String> {
        let text = line.trim_ascii();
        if text.is_empty() {
            return output.write(line);
        }
        self.done.documents += 1;
        let mut out = Vec::with_capacity(line.len() + 64);
        let mut renewing = self.offline.rewrap(self.tenant.clone()).map_err(|error| error.to_string())?;
        match renewing.push(text, &mut out).and_then(|()| renewing.finish(&mut out)) {
            Ok((0, tokens)) => {
                self.done.tokens += tokens;
                output.write(line)
            }
            Ok((renewed, tokens)) => {
                self.done.tokens += tokens;
                self.done.renewed += renewed;
                self.done.changed += 1;
                let end = line.iter().rposition(|byte| !byte.is_ascii_whitespace()).map_or(0, |at| at + 1);
                out.extend_from_slice(line.get(end..).unwrap_or_default());
                output.write(&out)
            }
            Err(_) if self.words.keep_going => {
                self.done.failed += 1;
                output.write(line)
            }
            Err(error) => Err(format!("line {number}: {error}; --keep-going leaves such lines as they are")),
        }
    }

    /// Writes down how far everything is.
    fn mark(&self, input: &Input, output: &mut Output) -> Result<(), String> {
        let Some(path) = &self.words.checkpoint else { return Ok(()) };
        let written = output.flushed()?;
        Checkpoint { read: input.read(), lines: input.lines(), written }.write(path)?;
        output.unfinished = None;
        Ok(())
    }
}

/// Where the result goes.
struct Output {
    to: Option<BufWriter<Box<dyn Write>>>,
    file: Option<File>,
    written: u64,
    /// A file that was made and is not whole yet, nor gone on with by a checkpoint: it goes with whatever goes wrong.
    unfinished: Option<PathBuf>,
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(path) = &self.unfinished {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Output {
    fn open(words: &Rewrap, checkpoint: Option<&Checkpoint>) -> Result<Self, String> {
        let (to, file): (Box<dyn Write>, _) = match &words.out {
            _ if words.dry_run => return Ok(Self { to: None, file: None, written: 0, unfinished: None }),
            None => (Box::new(io::stdout()), None),
            Some(path) => {
                let file = Self::file(path, checkpoint).map_err(|error| match error.kind() {
                    io::ErrorKind::AlreadyExists => {
                        format!(
                            "{} is there already, and nothing is written over: remove it or name another",
                            path.display()
                        )
                    }
                    _ => format!("{}: {error}", path.display()),
                })?;
                let second = file.try_clone().map_err(|error| error.to_string())?;
                (Box::new(file), Some(second))
            }
        };
        let written = checkpoint.map_or(0, |checkpoint| checkpoint.written);
        let unfinished = words.out.clone().filter(|_| checkpoint.is_none());
        Ok(Self { to: Some(BufWriter::new(to)), file, written, unfinished })
    }

    /// A new file, or one as long as the checkpoint says: what stands behind that was not written down as done.
    fn file(path: &Path, checkpoint: Option<&Checkpoint>) -> io::Result<File> {
        use std::io::{Seek, SeekFrom};
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = File::options();
        options.write(true).mode(0o600);
        let Some(checkpoint) = checkpoint else { return options.create_new(true).open(path) };
        let mut file = options.open(path)?;
        if file.metadata()?.len() < checkpoint.written {
            return Err(io::Error::other("it is shorter than the checkpoint says: remove both to begin anew"));
        }
        file.set_len(checkpoint.written)?;
        file.seek(SeekFrom::End(0))?;
        Ok(file)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.written += bytes.len() as u64;
        match &mut self.to {
            Some(to) => to.write_all(bytes).map_err(|error| format!("cannot write the result: {error}")),
            None => Ok(()),
        }
    }

    /// Everything is on disk; how many bytes that is.
    fn flushed(&mut self) -> Result<u64, String> {
        let wrong = |error: io::Error| format!("cannot write the result: {error}");
        if let Some(to) = &mut self.to {
            to.flush().map_err(wrong)?;
        }
        if let Some(file) = &self.file {
            file.sync_data().map_err(wrong)?;
        }
        Ok(self.written)
    }

    fn finish(mut self) -> Result<(), String> {
        self.flushed()?;
        self.unfinished = None;
        Ok(())
    }
}
