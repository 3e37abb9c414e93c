//! The compiled configuration behind one pointer: a request takes one snapshot at its start.

use std::sync::Arc;

use http::header::HOST;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Request, Uri, Version};
use oilskin_config::{self as config, Config};

use crate::route::{Table, shape};
use crate::rules::{Homes, PhaseRules};
use crate::telemetry::{Metrics, RouteMetrics};
use crate::tls::{self, Gathering};

/// One whole state that requests are served under.
pub(crate) struct Snapshot {
    pub(crate) tables: Vec<Table>,
    pub(crate) listener_names: Vec<Arc<str>>,
    /// Listeners whose peers a mesh's proxy has authenticated.
    pub(crate) behind_mesh: Vec<bool>,
    pub(crate) limits: config::Limits,
    pub(crate) timeouts: config::Timeouts,
    /// Counters of what reaches no route, by listener.
    pub(crate) unrouted: Vec<Arc<RouteMetrics>>,
}

/// A route, compiled.
pub(crate) struct Route {
    pub(crate) name: Arc<str>,
    methods: Vec<Method>,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) keep_host: bool,
    pub(crate) request: PhaseRules,
    pub(crate) response: PhaseRules,
    pub(crate) params: Vec<String>,
    pub(crate) opaque: Vec<String>,
    pub(crate) require_inspection: bool,
    pub(crate) tenant: Option<config::Tenant>,
    pub(crate) access_log: bool,
    pub(crate) metrics: Arc<RouteMetrics>,
}

impl Route {
    pub(crate) fn takes(&self, method: &Method) -> bool {
        self.methods.is_empty() || self.methods.contains(method)
    }

    /// Whether it has rules.
    pub(crate) fn protects(&self) -> bool {
        self.request.active() || self.response.active()
    }
}

/// An upstream, compiled. Pools are keyed by `id` and generation: another identity, another connection.
pub(crate) struct Upstream {
    pub(crate) id: usize,
    pub(crate) name: Arc<str>,
    pub(crate) target: config::Target,
    pub(crate) protocol: config::Protocol,
    pub(crate) h2c: bool,
    pub(crate) scheme: Scheme,
    pub(crate) authority: Authority,
    pub(crate) host: HeaderValue,
    pub(crate) prefix: String,
    pub(crate) tls: Option<Arc<tls::Client>>,
}

/// Why a checked configuration still cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A route's pattern.
    #[error("route {0}: its path pattern conflicts with another route's")]
    Pattern(String),
    /// Selectors of a route.
    #[error("route {0}: {1}")]
    Rules(String, String),
    /// A listener's certificates.
    #[error("listener {0}: {1}")]
    Listener(String, String),
    /// An upstream's name or certificates.
    #[error("upstream {0}: {1}")]
    Upstream(String, String),
    /// The way to Vault.
    #[error("vault: {0}")]
    Vault(String),
}

impl Snapshot {
    /// Compiles a checked configuration.
    ///
    /// # Errors
    /// What only shows when files are read or patterns compiled.
    pub(crate) fn build(
        config: &Config,
        homes: &Homes,
        metrics: &Metrics,
        identities: &mut Gathering<'_>,
    ) -> Result<Self, BuildError> {
        let upstreams = config
            .upstreams
            .iter()
            .enumerate()
            .map(|(id, upstream)| Upstream::build(id, upstream, identities).map(Arc::new))
            .collect::<Result<Vec<_>, _>>()?;
        let mut routes = Vec::with_capacity(config.routes.len());
        for text in &config.routes {
            let route = Route::build(text, config, &upstreams, homes, metrics)?;
            routes.push((text.listener, text, Arc::new(route)));
        }
        let tables = (0..config.listeners.len())
            .map(|listener| Table::new(&routes, listener))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| BuildError::Pattern(error.to_string()))?;
        Ok(Self {
            tables,
            listener_names: config.listeners.iter().map(|listener| listener.name.as_str().into()).collect(),
            behind_mesh: config.listeners.iter().map(|listener| listener.trust == config::Trust::Mesh).collect(),
            limits: config.limits.clone(),
            timeouts: config.timeouts.clone(),
            unrouted: config
                .listeners
                .iter()
                .map(|listener| Arc::new(RouteMetrics::unrouted(metrics, &listener.name)))
                .collect(),
        })
    }
}

impl Upstream {
    fn build(id: usize, upstream: &config::Upstream, identities: &mut Gathering<'_>) -> Result<Self, BuildError> {
        let wrong = |what: String| BuildError::Upstream(upstream.name.clone(), what);
        let authority: Authority =
            upstream.authority.parse().map_err(|_| wrong("its host is no valid authority".to_owned()))?;
        let host = HeaderValue::from_str(authority.as_str()).map_err(|error| wrong(error.to_string()))?;
        let tls = match (&upstream.tls, &upstream.target) {
            (Some(tls), config::Target::Tcp { host, .. }) => {
                let client = identities.client(tls, host, upstream.protocol);
                Some(client.map_err(|refused| wrong(refused.to_string()))?)
            }
            _ => None,
        };
        Ok(Self {
            id,
            name: upstream.name.as_str().into(),
            target: upstream.target.clone(),
            protocol: upstream.protocol,
            h2c: upstream.scheme == config::Scheme::H2c,
            scheme: if tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP },
            authority,
            host,
            prefix: upstream.prefix.clone(),
            tls,
        })
    }

    /// The number of the identity it is spoken to under now.
    pub(crate) fn generation(&self) -> u64 {
        self.tls.as_ref().and_then(|tls| tls.now()).map_or(0, |now| now.number)
    }

    /// HTTP/2 is configured, whatever ALPN might say.
    pub(crate) fn speaks_h2(&self) -> bool {
        match self.protocol {
            config::Protocol::H1 => false,
            config::Protocol::H2 => true,
            config::Protocol::Auto => self.h2c,
        }
    }

    pub(crate) fn may_speak_h2(&self) -> bool {
        self.protocol != config::Protocol::H1
            && (self.h2c || self.tls.is_some() || self.protocol == config::Protocol::H2)
    }

    /// The target as HTTP/1.1 writes it: `Host` and an origin-form target.
    pub(crate) fn address_h1<B>(&self, request: &mut Request<B>) {
        *request.version_mut() = Version::HTTP_11;
        if request.method() == Method::CONNECT {
            return;
        }
        let target = self.target_of(request.uri());
        *request.uri_mut() = target.into();
    }

    /// The target as HTTP/2 writes it: scheme, authority and path, no `Host`.
    pub(crate) fn address_h2<B>(&self, request: &mut Request<B>) {
        *request.version_mut() = Version::HTTP_2;
        let kept = request.headers_mut().remove(HOST);
        let authority =
            kept.and_then(|host| Authority::try_from(host.as_bytes()).ok()).unwrap_or_else(|| self.authority.clone());
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(authority);
        parts.path_and_query = Some(self.target_of(request.uri()));
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }

    fn target_of(&self, uri: &Uri) -> PathAndQuery {
        let sent = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        if self.prefix.is_empty() {
            return sent;
        }
        // Prefix and path are each valid, so their concatenation is.
        PathAndQuery::try_from(format!("{}{sent}", self.prefix)).unwrap_or(sent)
    }
}

impl Route {
    fn build(
        text: &config::Route,
        config: &Config,
        upstreams: &[Arc<Upstream>],
        homes: &Homes,
        metrics: &Metrics,
    ) -> Result<Self, BuildError> {
        let wrong = |what: String| BuildError::Rules(text.name.clone(), what);
        let upstream = upstreams.get(text.upstream).ok_or_else(|| wrong("its upstream does not exist".to_owned()))?;
        let rules = |phase: &config::Phase| PhaseRules::build(phase, &config.limits, homes, metrics).map_err(wrong);
        let listener = config.listeners.get(text.listener).map(|listener| listener.name.as_str()).unwrap_or_default();
        let methods = text
            .methods
            .iter()
            .map(|method| method.parse().map_err(|_| wrong(format!("{method} is no method"))))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            name: text.name.as_str().into(),
            methods,
            upstream: Arc::clone(upstream),
            keep_host: text.keep_host,
            request: rules(&text.request)?,
            response: rules(&text.response)?,
            params: text.path.as_deref().map(|path| shape(path).1).unwrap_or_default(),
            opaque: text.opaque.clone(),
            require_inspection: text.require_inspection,
            tenant: text.tenant.clone(),
            access_log: text.access_log,
            metrics: Arc::new(RouteMetrics::new(metrics, listener, &text.name)),
        })
    }
}
