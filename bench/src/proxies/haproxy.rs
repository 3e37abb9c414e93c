//! HAProxy as a pass-through proxy.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use oilskin_tests::process::free_port;

use crate::load::Front;
use crate::process::{Core, Running};
use crate::tools;

pub(super) fn proxy(front: Front, upstream: SocketAddr, folder: &Path) -> Result<(Running, SocketAddr)> {
    let address = free_port();
    let protocol = match front {
        Front::H1 => "",
        Front::H2c => "proto h2",
    };
    let config = format!(
        "global\n  nbthread 1\n  maxconn 1024\n\
         defaults\n  mode http\n  option http-keep-alive\n  http-reuse always\n\
         \x20 timeout connect 2s\n  timeout client 60s\n  timeout server 60s\n\
         frontend in\n  bind {address} {protocol}\n  default_backend origin\n\
         backend origin\n  server origin {upstream}\n"
    );
    let file = folder.join("haproxy.cfg");
    fs::write(&file, config)?;
    let mut command = Command::new(tools::haproxy()?);
    command.arg("-db").arg("-f").arg(file);
    let mut running = Running::start("haproxy", &command, Core::Proxy, &folder.join("log"))?;
    running.until_listening(address)?;
    Ok((running, address))
}
