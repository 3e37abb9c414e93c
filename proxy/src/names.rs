//! stand-in until the helper's lands
use std::{io, sync::Arc, time::Duration};
use tokio::net::TcpStream;
pub(crate) struct Names;
impl Names {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self)
    }
    pub(crate) async fn connect(&self, host: &str, port: u16, _deadline: Duration) -> io::Result<TcpStream> {
        let s = TcpStream::connect((host, port)).await?;
        s.set_nodelay(true)?;
        Ok(s)
    }
}
