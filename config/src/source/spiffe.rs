//! `spiffe:unix:/path?hint=NAME&trust=`, or `spiffe:` with the socket that the environment names.

use std::path::PathBuf;

use super::{is_plain, no_trust, options};
use crate::env::{SPIFFE_SOCKET, Settings};
use crate::value::{self, Read};

/// What a SPIFFE Workload API issues to this workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spiffe {
    /// The agent's socket.
    pub socket: PathBuf,
    /// Which identity, where the workload has several; none for the first.
    pub hint: Option<String>,
    /// Whether its bundles are the authorities that peers are checked against.
    pub trust: bool,
}

pub(super) fn parse(text: &str, vars: &Settings) -> Read<Spiffe> {
    let (address, options) = options(text, &["hint", "trust"])?;
    let named = if address.is_empty() {
        let named = vars.get(SPIFFE_SOCKET).map(String::as_str);
        named.ok_or(format!("names no socket, and {SPIFFE_SOCKET} is not set: spiffe:unix:/path"))?
    } else {
        address
    };
    let said = |message: &str| match address.is_empty() {
        true => format!("{SPIFFE_SOCKET}: {message}"),
        false => message.to_owned(),
    };
    if named.starts_with("tcp:") {
        let message = "an agent is reached by unix:/path alone: over TCP keys would cross the network in the clear, and the \
                       agent could not tell who asks";
        return Err(said(message));
    }
    let path = named.strip_prefix("unix:").ok_or_else(|| said("the agent is reached by unix:/path alone"))?;
    // With an empty host: unix:///path.
    let path = path.strip_prefix("//").unwrap_or(path);
    let hint = options.get("hint").copied();
    if hint.is_some_and(|hint| hint.is_empty() || !is_plain(hint)) {
        return Err("a hint is visible ASCII without %, # and ?".to_owned());
    }
    let socket = value::unix_path(path).map_err(|message| said(&message))?;
    Ok(Spiffe { socket, hint: hint.map(str::to_owned), trust: no_trust(&options)? })
}

#[cfg(test)]
mod tests {
    use super::{SPIFFE_SOCKET, Spiffe, parse};
    use crate::value::Read;

    fn read(text: &str, socket: &str) -> Read<Spiffe> {
        parse(text, &[(SPIFFE_SOCKET.to_owned(), socket.to_owned())].into())
    }

    #[test]
    fn the_socket_stands_in_the_source_or_in_the_environment() {
        for (text, socket) in
            [("unix:/a/b", "unix:/other"), ("unix:///a/b", ""), ("", "unix:///a/b"), ("", "unix:/a/b")]
        {
            assert_eq!(read(text, socket).unwrap().socket.to_str(), Some("/a/b"), "{text}");
        }
        assert!(parse("", &Default::default()).unwrap_err().contains(SPIFFE_SOCKET));
    }

    #[test]
    fn a_hint_and_that_no_authorities_are_wanted() {
        let spiffe = read("?hint=internal&trust=", "unix:/a").unwrap();
        assert_eq!((spiffe.hint.as_deref(), spiffe.trust), (Some("internal"), false));
        let spiffe = read("", "unix:/a").unwrap();
        assert_eq!((spiffe.hint.as_deref(), spiffe.trust), (None, true));
    }

    #[test]
    fn what_is_no_agent_is_refused() {
        for (text, socket) in [
            ("tcp://127.0.0.1:80", ""),
            ("", "tcp://127.0.0.1:80"),
            ("", "tcp:127.0.0.1:80"),
            ("", "/a"),
            ("", "unix://host/a"),
            ("unix:a", ""),
            ("unix:/a?hint=", ""),
            ("unix:/a?hint=a b", ""),
            ("unix:/a?hint=a&hint=b", ""),
            ("unix:/a?trust=own", ""),
            ("unix:/a?other=", ""),
        ] {
            assert!(read(text, socket).is_err(), "{text} {socket}");
        }
        let told = read("", "tcp://127.0.0.1:80").unwrap_err();
        assert!(told.starts_with(SPIFFE_SOCKET) && told.contains("TCP"), "{told}");
    }
}
