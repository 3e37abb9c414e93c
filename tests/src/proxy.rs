//! Oilskin, run in the test's process on free ports.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use oilskin::{App, Running};

use crate::client::{Client, json};
use crate::keys::Keys;
use crate::{Message, Upstream};

/// What a test configures.
#[derive(Default)]
pub struct Builder {
    vars: BTreeMap<String, String>,
}

/// A running Oilskin.
pub struct Proxy {
    running: Option<Running>,
    address: SocketAddr,
    metrics: Option<SocketAddr>,
    /// The keys it holds.
    pub keys: Keys,
}

impl Builder {
    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.vars.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Sets `OILSKIN_FIELDS`.
    #[must_use]
    pub fn fields(self, fields: &str) -> Self {
        self.env("OILSKIN_FIELDS", fields)
    }

    /// Starts it with fresh keys.
    pub fn start(self) -> Proxy {
        self.start_with(Keys::new())
    }

    /// Starts it with these keys.
    pub fn start_with(mut self, keys: Keys) -> Proxy {
        for (name, value) in [
            ("OILSKIN_ADMIN_LISTEN", "off".to_owned()),
            ("OILSKIN_HEALTH_LISTEN", "off".to_owned()),
            ("OILSKIN_METRICS_LISTEN", "127.0.0.1:0".to_owned()),
            ("OILSKIN_ROOT_KEY", keys.root_uri()),
            ("OILSKIN_KEY_STORE", keys.store_uri()),
            ("OILSKIN_UNSAFE_UNLOCKED_KEYS", "true".to_owned()),
        ] {
            self.vars.entry(name.to_owned()).or_insert(value);
        }
        let config = crate::config::parse(&self.vars).unwrap_or_else(|problems| panic!("{problems}"));
        let app = App::build(config).unwrap_or_else(|error| panic!("{error}"));
        let address = app.address(0).unwrap();
        let metrics = app.metrics_address();
        Proxy { running: Some(app.start().unwrap()), address, metrics, keys }
    }
}

impl Proxy {
    /// One egress listener before `upstream`, by environment.
    pub fn before(upstream: &Upstream) -> Builder {
        Builder::default().env("OILSKIN_UPSTREAM", &upstream.url()).env("OILSKIN_LISTEN", "127.0.0.1:0")
    }

    /// From a YAML document.
    pub fn yaml(text: &str) -> Builder {
        Builder::default().env("OILSKIN_CONFIG_YAML", text)
    }

    /// Where its first listener listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A fresh connection.
    pub fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// One JSON request over a fresh connection.
    pub fn json(&self, method: &str, target: &str, body: &str) -> Message {
        json(self.address, method, target, body)
    }

    /// The metrics page.
    pub fn metrics(&self) -> String {
        json(self.metrics.unwrap(), "GET", "/metrics", "").text()
    }

    /// Its threads, to drain and stop.
    pub fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    /// Drains and waits; how many connections were cut.
    pub fn drain(mut self) -> usize {
        let running = self.running.take().unwrap();
        running.stopper().drain();
        running.join().unwrap()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stopper().stop();
            let joined = running.join();
            if !std::thread::panicking() {
                joined.unwrap();
            }
        }
    }
}
