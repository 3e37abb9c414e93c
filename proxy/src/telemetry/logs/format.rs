//! The form of a line. Written here because the library's text form passes line breaks of a value on as they are.

use std::fmt::{self, Write as _};

use oilskin_config::LogFormat;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// One event, one line; JSON keys are `time`, `level`, `target`, `message`, then the event's own.
pub(super) struct Lines {
    pub(super) format: LogFormat,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields { format: self.format, message: String::new(), rest: String::new() };
        event.record(&mut fields);
        match self.format {
            LogFormat::Text => text(&mut out, event, &fields),
            LogFormat::Json => json(&mut out, event, &fields),
        }
    }
}

/// What a command says beside its result, like its errors: no time and no place.
pub(super) struct Warnings;

impl<S, N> FormatEvent<S, N> for Warnings
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields { format: LogFormat::Text, message: String::new(), rest: String::new() };
        event.record(&mut fields);
        let level = if *event.metadata().level() == Level::WARN { "warning: " } else { "" };
        writeln!(out, "oilskin: {level}{}{}", fields.message, fields.rest)
    }
}

fn text(out: &mut Writer<'_>, event: &Event<'_>, fields: &Fields) -> fmt::Result {
    let level = *event.metadata().level();
    SystemTime.format_time(out)?;
    if out.has_ansi_escapes() {
        write!(out, " {}{level:>5}\x1b[0m ", colour(level))?;
    } else {
        write!(out, " {level:>5} ")?;
    }
    writeln!(out, "{}: {}{}", event.metadata().target(), fields.message, fields.rest)
}

fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        _ => "\x1b[2m",
    }
}

fn json(out: &mut Writer<'_>, event: &Event<'_>, fields: &Fields) -> fmt::Result {
    out.write_str("{\"time\":\"")?;
    SystemTime.format_time(out)?;
    let (level, target) = (event.metadata().level(), event.metadata().target());
    write!(out, "\",\"level\":\"{level}\",\"target\":\"{target}\",\"message\":")?;
    quote(out, &fields.message)?;
    writeln!(out, "{}}}", fields.rest)
}

/// Collects an event's fields: the message raw for JSON, escaped for text; the rest in final form.
struct Fields {
    format: LogFormat,
    message: String,
    rest: String,
}

impl Fields {
    fn key(&mut self, name: &str) {
        // Writing into a string cannot fail, here and below.
        let _ = match self.format {
            LogFormat::Text => write!(self.rest, " {name}="),
            LogFormat::Json => write!(self.rest, ",\"{name}\":"),
        };
    }

    fn bare(&mut self, field: &Field, value: impl fmt::Display) {
        self.key(field.name());
        let _ = write!(self.rest, "{value}");
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            let _ = match self.format {
                LogFormat::Text => escape(&mut self.message, value),
                LogFormat::Json => self.message.write_str(value),
            };
            return;
        }
        self.key(field.name());
        let plain = self.format == LogFormat::Text && !value.is_empty() && value.bytes().all(is_plain);
        let _ = if plain { self.rest.write_str(value) } else { quote(&mut self.rest, value) };
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.bare(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.bare(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.bare(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.bare(field, value);
        } else {
            self.record_str(field, &value.to_string());
        }
    }
}

/// What needs no quotes in text.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'"' && byte != b'='
}

/// A JSON string; control characters above ASCII and line separators are escaped too, for terminals.
fn quote(out: &mut impl fmt::Write, value: &str) -> fmt::Result {
    out.write_char('"')?;
    for character in value.chars() {
        match character {
            '"' => out.write_str("\\\"")?,
            '\\' => out.write_str("\\\\")?,
            other => put(out, other)?,
        }
    }
    out.write_char('"')
}

fn escape(out: &mut String, value: &str) -> fmt::Result {
    value.chars().try_for_each(|character| put(out, character))
}

fn put(out: &mut impl fmt::Write, character: char) -> fmt::Result {
    if character.is_control() || is_invisible(character) {
        write!(out, "\\u{:04x}", u32::from(character))
    } else {
        out.write_char(character)
    }
}

/// Line separators and the marks that turn the direction of text: all within four hexadecimal digits.
fn is_invisible(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
