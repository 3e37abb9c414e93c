//! `oilskin` itself: reads, builds, serves until it is told to end.

use oilskin_config::{Config, Vars};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Exit, Printer, read_file};
use crate::StartError;
use crate::app::{App, Stopper};
use crate::telemetry;

pub(super) fn run(vars: &Vars, printer: &Printer) -> Exit {
    match oilskin_config::parse(vars, &read_file) {
        Ok(config) => serve(config, printer, |_| ()),
        Err(problems) => printer.problems(&problems),
    }
}

/// Runs a configuration to its end; `ready` is called once everything is bound.
pub(super) fn serve(config: Config, printer: &Printer, ready: impl FnOnce(&App)) -> Exit {
    if let Err(error) = telemetry::install(&config.log) {
        printer.failed(format_args!("OILSKIN_LOG: {error}"));
        return Exit::Configuration;
    }
    let app = match App::build(config) {
        Ok(app) => app,
        Err(error) => {
            printer.failed(&error);
            return Exit::of(&error);
        }
    };
    ready(&app);
    match until_told(app) {
        Ok(0) => Exit::Done,
        // Said by the drain's own log line.
        Ok(_) => Exit::Failed,
        Err(error) => {
            printer.failed(&error);
            error.downcast_ref::<StartError>().map_or(Exit::Failed, Exit::of)
        }
    }
}

/// Serves until a signal. The first one drains, the second one cuts. Returns how many connections were cut in work.
fn until_told(app: App) -> anyhow::Result<usize> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Before the threads start: from here on no signal ends the process unasked.
        let mut signals = Signals::new()?;
        let listening = app.listening();
        let mut running = app.start()?;
        let keys = running.keys();
        tokio::pin!(keys);
        let mut asking = true;
        for (listener, address) in listening {
            tracing::info!(listener, address, "listening");
        }
        let stopper = running.stopper();
        tracing::info!(pid = std::process::id(), "serving");
        let mut ended = tokio::task::spawn_blocking(move || running.join());
        let cut = loop {
            tokio::select! {
                ended = &mut ended => break ended??,
                told = signals.next() => tell(&stopper, told),
                keys = &mut keys, if asking => {
                    asking = false;
                    if let Err(error) = keys {
                        stopper.stop();
                        ended.await??;
                        return Err(StartError::from(error).into());
                    }
                }
            }
        };
        match cut {
            0 => tracing::info!("ended"),
            cut => tracing::warn!(cut, "ended with requests in work"),
        }
        Ok(cut)
    })
}

fn tell(stopper: &Stopper, told: Told) {
    match told {
        Told::End if stopper.is_draining() => {
            tracing::warn!("told to end again: cutting what is left");
            stopper.stop();
        }
        Told::End => {
            tracing::info!(drain_ms = stopper.drain_ms(), "told to end: draining");
            stopper.drain();
        }
        Told::Reload => tracing::warn!("SIGHUP: this version reads its configuration at the start only"),
    }
}

/// What a signal asks for.
enum Told {
    End,
    Reload,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::End,
            _ = self.interrupt.recv() => Told::End,
            _ = self.hangup.recv() => Told::Reload,
        }
    }
}
