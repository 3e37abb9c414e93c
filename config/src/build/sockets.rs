//! `listeners:` and `service:`: what is listened on, and that no two share an address.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::{Reader, join, one_of, section, tls};
use crate::problem::Place;
use crate::value;
use crate::yaml::Node;
use crate::{Bind, Direction, Listener, Service, Trust};

/// One address to listen on, and the setting that says so.
pub(super) struct Socket {
    pub(super) setting: String,
    pub(super) place: Place,
    pub(super) bind: Bind,
}

/// `listeners:`.
pub(super) fn listeners(r: &mut Reader<'_>, tree: &Node) -> (Vec<Listener>, Vec<Socket>) {
    let mut listeners: Vec<Listener> = Vec::new();
    let mut sockets = Vec::new();
    for (index, node) in r.list(tree, "", "listeners").into_iter().enumerate() {
        let at = format!("listeners[{index}]");
        r.known_keys(node, &at, "listeners[]");
        let name = r.required(node, &at, "name", |text| value::name(text).map(|()| text.to_owned()));
        let bind = r.required(node, &at, "bind", value::bind);
        let words = [("egress", Direction::Egress), ("ingress", Direction::Ingress)];
        let direction = r.setting(node, &at, "direction", |text| one_of(&words, text)).unwrap_or(Direction::Egress);
        let trust = r.setting(node, &at, "trust", |text| one_of(&[("mesh", Trust::Mesh)], text)).unwrap_or(Trust::Bind);
        let tls = tls::listener(r, node, &at);
        let (Some(name), Some(bind)) = (name, bind) else { continue };
        if trust == Trust::Mesh && !value::is_local(&bind) {
            r.problem(&node.place, &at, "trust: mesh is for loopback: elsewhere anyone could connect past the mesh");
        }
        if tls.is_some() && matches!(bind, Bind::Unix(_)) {
            r.problem(&node.place, &join(&at, "tls"), tls::NOT_ON_UNIX);
        }
        if listeners.iter().any(|other| other.name == name) {
            r.problem(&node.place, &at, format!("a second listener is named {name}"));
        }
        let place = node.get("bind").map_or(&node.place, |node| &node.place).clone();
        sockets.push(Socket { setting: join(&at, "bind"), place, bind: bind.clone() });
        listeners.push(Listener { name, bind, direction, trust, tls });
    }
    (listeners, sockets)
}

/// `service:`.
pub(super) fn service(r: &mut Reader<'_>, tree: &Node) -> (Service, Vec<Socket>) {
    let empty = Node::map(&Place::Nowhere);
    let node = section(r, tree, "service").unwrap_or(&empty);
    let mut sockets = Vec::new();
    let mut socket = |key: &str, default: &str, local: bool| {
        let read = |text: &str| match text {
            "off" => Ok(None),
            text => match value::bind(text)? {
                bind if local && !value::is_local(&bind) => Err("must be on loopback or a Unix socket".to_owned()),
                bind => Ok(Some(bind)),
            },
        };
        let bind = r.setting(node, "service", key, read).unwrap_or(value::bind(default).ok());
        sockets.extend(bind.clone().map(|bind| {
            let place = node.get(key).map_or(&Place::Nowhere, |node| &node.place).clone();
            let setting = format!("service.{key} (OILSKIN_{}_LISTEN)", key.to_ascii_uppercase());
            Socket { setting, place, bind }
        }));
        bind
    };
    let service = Service {
        admin: socket("admin", "127.0.0.1:16000", true),
        metrics: socket("metrics", ":16020", false),
        health: socket("health", ":16021", false),
    };
    (service, sockets)
}

/// Two that cannot be bound together. Who reached one would else mean the other: a request for the admin pages, protected fields
/// to the upstream as they are.
pub(super) fn shared<'a>(r: &mut Reader<'_>, sockets: impl Iterator<Item = &'a Socket> + Clone) {
    for (index, second) in sockets.clone().enumerate() {
        let Some(first) = sockets.clone().take(index).find(|first| overlap(&first.bind, &second.bind)) else {
            continue;
        };
        let place = if second.place == Place::Nowhere { &first.place } else { &second.place };
        let message = format!("{} and {} share an address; give each its own", first.setting, second.setting);
        r.problem(place, "", message);
    }
}

fn overlap(one: &Bind, other: &Bind) -> bool {
    match (one, other) {
        (Bind::Unix(one), Bind::Unix(other)) => one == other,
        _ => match (tcp(one), tcp(other)) {
            (Some(one), Some(other)) => {
                let takes = one == other || takes(one.ip(), other.ip()) || takes(other.ip(), one.ip());
                one.port() == other.port() && one.port() != 0 && takes
            }
            _ => false,
        },
    }
}

fn tcp(bind: &Bind) -> Option<SocketAddr> {
    match bind {
        Bind::Tcp(SocketAddr::V6(address)) => Some(match address.ip().to_ipv4_mapped() {
            Some(mapped) => (mapped, address.port()).into(),
            None => SocketAddr::V6(*address),
        }),
        Bind::Tcp(address) => Some(*address),
        Bind::AnyPort(port) => Some((Ipv6Addr::UNSPECIFIED, *port).into()),
        Bind::Unix(_) => None,
    }
}

/// Whether a socket on `all` takes what comes to `one`, too; `[::]` does for IPv4.
fn takes(all: IpAddr, one: IpAddr) -> bool {
    all.is_unspecified() && (all.is_ipv6() || one.is_ipv4())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_overlap_as_the_kernel_sees_it() {
        let overlap = |one: &str, other: &str| {
            let (one, other) = (value::bind(one).unwrap(), value::bind(other).unwrap());
            assert_eq!(overlap(&one, &other), overlap(&other, &one));
            overlap(&one, &other)
        };
        for (one, other) in [
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("0.0.0.0:1", "127.0.0.1:1"),
            (":1", "127.0.0.1:1"),
            (":1", "[::1]:1"),
            (":1", "0.0.0.0:1"),
            ("[::ffff:127.0.0.1]:1", "127.0.0.1:1"),
            ("unix:/run/a.sock", "unix:/run//a.sock"),
        ] {
            assert!(overlap(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("127.0.0.1:1", "127.0.0.1:2"),
            ("127.0.0.1:1", "127.0.0.2:1"),
            ("0.0.0.0:1", "[::1]:1"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            (":0", ":0"),
            ("unix:/run/a.sock", "unix:/run/b.sock"),
            ("unix:/run/a.sock", ":1"),
        ] {
            assert!(!overlap(one, other), "{one} {other}");
        }
    }
}
