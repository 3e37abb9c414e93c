//! The one table of settings: it drives the environment, the check for unknown names, the generated page and the schema.

/// Whether a changed setting needs a new process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reload {
    Live,
    Restart,
}

/// What a setting's text must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Duration,
    Size,
    Count,
    Boolean,
    Address,
    Path,
    List,
    Map,
    OneOf(&'static [&'static str]),
}

/// One setting.
pub(crate) struct Row {
    /// Where it stands in a document; `[]` for each element, `*` for any name.
    pub(crate) path: &'static str,
    /// Its variable; empty where there is none.
    pub(crate) env: &'static str,
    pub(crate) kind: Kind,
    pub(crate) default: &'static str,
    pub(crate) reload: Reload,
    pub(crate) text: &'static str,
}

macro_rules! rows {
    ($($path:literal $env:literal $kind:expr, $default:literal $reload:ident $text:literal)*) => {
        &[$(Row { path: $path, env: $env, kind: $kind, default: $default, reload: Reload::$reload, text: $text },)*]
    };
}

use Kind::{Address, Boolean, Count, Duration, List, Map, OneOf, Path, Size, Text};

const OPS: Kind = OneOf(&["encrypt", "decrypt"]);
const ON_ERROR: Kind = OneOf(&["fail", "ciphertext", "null", "drop"]);

/// Variables that are no setting of a document.
pub(crate) const ENV_ONLY: &[Row] = rows! {
    "" "OILSKIN_CONFIG" Path, "" Restart "The YAML document's path."
    "" "OILSKIN_CONFIG_YAML" Text, "" Restart "The YAML document itself."
    "" "OILSKIN_UPSTREAM" Text, "" Live "Where the app's requests go: http://, h2c:// or https:// with a path as prefix, or unix:/path. Makes one egress listener with a catch-all route."
    "" "OILSKIN_LISTEN" Address, "127.0.0.1:16001" Restart "The egress listener: ADDRESS:PORT, :PORT or unix:/path."
    "" "OILSKIN_FIELDS" Text, "" Live "Selectors separated by commas (those inside brackets and quotes do not count), each perhaps with `each:` before and ` context=NAME` behind: encrypted in requests and decrypted in responses; the reverse on the ingress listener."
    "" "OILSKIN_PLAINTEXT" OneOf(&["refuse", "accept"]), "refuse" Live "Whether a value that is no token is taken while decrypting. `accept` is for migration: the rule proves nothing then."
    "" "OILSKIN_BACKEND" Text, "local" Live "What holds the keys of OILSKIN_FIELDS: `local` (a keyset), or vault:MOUNT/keys/NAME, a derived key of Vault's transit engine."
    "" "OILSKIN_TLS_SOURCE" Text, "" Restart "The egress listener speaks TLS with what this source gives, and asks clients for certificates where it gives authorities (`trust=`, empty, for none). Instead of files. sds:unix:/path, perhaps with ?certificate=default&trust=ROOTCA; spiffe:unix:/path or spiffe: (the socket of SPIFFE_ENDPOINT_SOCKET), perhaps with ?hint=NAME; vault:MOUNT/issue/ROLE?common_name=NAME; for development dev:, perhaps with ?dir=.oilskin/ca&names=localhost,127.0.0.1,::1."
    "" "OILSKIN_TLS_CERT_FILE" Path, "" Restart "The egress listener speaks TLS: its certificate chain (PEM), leaf first. Watched."
    "" "OILSKIN_TLS_KEY_FILE" Path, "" Restart "Its private key (PEM). Watched."
    "" "OILSKIN_TLS_CLIENT_CA_FILE" Path, "" Restart "Authorities (PEM) that its clients' certificates are checked against: mTLS. Watched."
    "" "OILSKIN_TLS_CRL_FILE" Path, "" Restart "Revocation lists (PEM) of those authorities. Watched."
    "" "OILSKIN_TLS_ALLOW" Text, "" Restart "Who may connect, separated by commas: spiffe://DOMAIN/PATH (* is a segment, a last ** the rest), dns:NAME, uri:URI."
    "" "OILSKIN_INGRESS_TLS_SOURCE" Text, "" Restart "The same for the ingress listener."
    "" "OILSKIN_INGRESS_TLS_CERT_FILE" Path, "" Restart "The same for the ingress listener."
    "" "OILSKIN_INGRESS_TLS_KEY_FILE" Path, "" Restart "Its private key (PEM)."
    "" "OILSKIN_INGRESS_TLS_CLIENT_CA_FILE" Path, "" Restart "Authorities of its clients: mTLS, which authenticates its peers."
    "" "OILSKIN_INGRESS_TLS_CRL_FILE" Path, "" Restart "Revocation lists of those authorities."
    "" "OILSKIN_INGRESS_TLS_ALLOW" Text, "" Restart "Who may connect."
    "" "OILSKIN_UPSTREAM_CA_FILE" Path, "" Restart "A CA bundle (PEM) beside the native roots, for https://. Watched."
    "" "OILSKIN_UPSTREAM_SOURCE" Text, "" Restart "A source of our own certificate and of the authorities, alone, that the upstream's is checked against, in the words of OILSKIN_TLS_SOURCE. Instead of files."
    "" "OILSKIN_UPSTREAM_CERT_FILE" Path, "" Restart "Our own certificate chain (PEM) towards the upstream. Watched."
    "" "OILSKIN_UPSTREAM_KEY_FILE" Path, "" Restart "Its private key (PEM). Watched."
    "" "OILSKIN_UPSTREAM_CRL_FILE" Path, "" Restart "Revocation lists (PEM) of the upstream's authorities. Watched."
    "" "OILSKIN_UPSTREAM_ALLOW" Text, "" Restart "Who the upstream must be, in the words of OILSKIN_TLS_ALLOW, instead of the URL's host name."
    "" "OILSKIN_UPSTREAM_MIN_TLS" OneOf(&["1.3", "1.2"]), "1.3" Restart "Oldest version of TLS towards the upstream."
    "" "OILSKIN_ACCESS_LOG" Boolean, "false" Live "Log every request instead of those that are no plain success."
    "" "OILSKIN_UNSAFE_OPAQUE_TYPES" Text, "" Live "Media types, separated by commas, that pass unread although fields are protected."
    "" "OILSKIN_INGRESS_LISTEN" Address, "" Restart "The ingress listener: decrypts in requests, encrypts in responses. Needs OILSKIN_APP."
    "" "OILSKIN_APP" Text, "" Live "The app behind the ingress listener, as a URL."
    "" "OILSKIN_ROOT_PASSPHRASE" Text, "" Restart "The passphrase itself; OILSKIN_ROOT_PASSPHRASE_FILE is safer."
    "" "VAULT_TOKEN" Text, "" Restart "The token itself; VAULT_TOKEN_FILE is safer."
    "" "OILSKIN_VAULT_SECRET_ID" Text, "" Restart "AppRole's secret ID itself; OILSKIN_VAULT_SECRET_ID_FILE is safer."
    "" "OILSKIN_INGRESS_TRUST" OneOf(&["mesh"]), "" Restart "`mesh`: a mesh proxy on loopback has authenticated the peers of the ingress listener."
};

/// Settings of a document.
pub(crate) const ROWS: &[Row] = rows! {
    "workers" "OILSKIN_WORKERS" Count, "min(2, CPUs)" Restart "Data-path threads."
    "listeners" "" List, "" Restart "Sockets that traffic comes in by."
    "listeners[].name" "" Text, "" Restart "Name that routes, logs and metrics use."
    "listeners[].bind" "" Address, "" Restart "ADDRESS:PORT, :PORT or unix:/path."
    "listeners[].direction" "" OneOf(&["egress", "ingress"]), "egress" Restart "egress: app to world; ingress: world to app."
    "listeners[].trust" "" OneOf(&["mesh"]), "" Restart "`mesh`: a mesh proxy on loopback has authenticated its peers."
    "listeners[].tls.source" "" Text, "" Restart "A source of certificate, key and authorities, instead of files, in the words of OILSKIN_TLS_SOURCE: sds:unix:/path, spiffe:unix:/path, spiffe:, vault:MOUNT/issue/ROLE, dev:, perhaps with ?options."
    "listeners[].tls.cert_file" "" Path, "" Restart "It speaks TLS: its certificate chain (PEM), leaf first. Watched."
    "listeners[].tls.key_file" "" Path, "" Restart "Its private key (PEM). Watched."
    "listeners[].tls.client_ca_file" "" Path, "" Restart "Authorities (PEM) that clients' certificates are checked against: mTLS. Watched."
    "listeners[].tls.crl_file" "" Path, "" Restart "Revocation lists (PEM) of those authorities. Watched."
    "listeners[].tls.client_auth" "" OneOf(&["required", "optional", "none"]), "required" Restart "Whether a client may come without a certificate; one that is sent must be good. `none` asks for none, whatever the source gives."
    "listeners[].tls.allow" "" List, "anyone the authorities vouch for" Restart "Who may connect: spiffe://DOMAIN/PATH (* is a segment, a last ** the rest), dns:NAME, uri:URI."
    "listeners[].tls.more" "" List, "" Restart "Further certificates, chosen by the name that the client asks for."
    "listeners[].tls.more[].cert_file" "" Path, "" Restart "Chain (PEM)."
    "listeners[].tls.more[].key_file" "" Path, "" Restart "Key (PEM)."
    "listeners[].tls.min_version" "" OneOf(&["1.3", "1.2"]), "1.3" Restart "Oldest version of TLS."
    "listeners[].tls.forward_client_cert" "" Boolean, "false" Restart "Set X-Forwarded-Client-Cert from the client's certificate. What clients send under that name never passes."
    "upstreams" "" Map, "" Live "Where requests go, by name."
    "upstreams.*.url" "" Text, "" Live "http://, h2c:// or https:// with a path as prefix, or unix:/path."
    "upstreams.*.protocol" "" OneOf(&["auto", "h1", "h2", "h2c"]), "auto" Live "By the URL's scheme and ALPN, or fixed."
    "upstreams.*.tls.source" "" Text, "" Restart "A source of our certificate and of the authorities, in the words of listeners[].tls.source, instead of files."
    "upstreams.*.tls.ca_file" "" Path, "" Restart "A CA bundle (PEM). Watched."
    "upstreams.*.tls.roots" "" OneOf(&["system", "own"]), "system; own beside a source's" Restart "`own`: ca_file or the source alone vouches for the upstream; `system`: the native roots as well."
    "upstreams.*.tls.cert_file" "" Path, "" Restart "Our own certificate chain (PEM). Watched."
    "upstreams.*.tls.key_file" "" Path, "" Restart "Its private key (PEM). Watched."
    "upstreams.*.tls.crl_file" "" Path, "" Restart "Revocation lists (PEM). Watched."
    "upstreams.*.tls.min_version" "" OneOf(&["1.3", "1.2"]), "1.3" Restart "Oldest version of TLS."
    "upstreams.*.tls.server_name" "" Text, "the URL's host" Restart "Name that is asked for and that the certificate must carry."
    "upstreams.*.tls.allow" "" List, "" Restart "Who the upstream must be, instead of carrying the name: spiffe://DOMAIN/PATH, dns:NAME, uri:URI."
    "keys.roots" "OILSKIN_ROOT_KEY" List, "" Restart "Root keys: file:PATH, pkcs11:token=LABEL;object=LABEL?module-path=PATH&pin-source=file:PATH, awskms:///KEY, vault:MOUNT/keys/NAME. In the variable separated by spaces."
    "keys.passphrase_file" "OILSKIN_ROOT_PASSPHRASE_FILE" Path, "" Restart "The passphrase of root keys in files; `keys init` then makes the file so that it opens by the passphrase alone."
    "keys.hold" "OILSKIN_ROOT_HOLD" Text, "any" Restart "How many roots open a keyset: any, all, quorum:K."
    "keys.store" "OILSKIN_KEY_STORE" Text, "" Restart "Where keysets live: file:DIR, vault:MOUNT/PATH, awssm:NAME, k8s:NAMESPACE/NAME; {keyset} may stand for the keyset's name, else it is one keyset."
    "keys.signer" "OILSKIN_KEYSET_SIGNER" Text, "" Restart "Ed25519 public key (base64url) that must have signed every keyset."
    "keys.min_epoch" "OILSKIN_KEYSET_MIN_EPOCH" Count, "0" Restart "Lowest epoch taken at the first load."
    "keys.refresh" "OILSKIN_KEY_REFRESH" Duration, "60s" Restart "How often the store is read again (1s to 1h); a keyset's own interval, where it is shorter, holds instead."
    "keys.root_check" "OILSKIN_KEY_ROOT_CHECK" Duration, "5m" Restart "How often the roots unwrap a keyset's wrapping key anew, to be thrown away (at least keys.refresh)."
    "keys.stale_encrypt" "OILSKIN_KEY_STALE_ENCRYPT" Duration, "1h" Restart "How long keys encrypt after store and roots last answered."
    "keys.stale_decrypt" "OILSKIN_KEY_STALE_DECRYPT" Duration, "4h" Restart "How long they decrypt."
    "keys.rotate_after" "OILSKIN_KEY_ROTATE_AFTER" Duration, "90d" Restart "Age of a key version at which `oilskin keys rotate --if-due` makes the next (1d to 3650d)."
    "keys.rotator" "OILSKIN_KEY_ROTATOR" OneOf(&["command", "sidecars"]), "command" Restart "Who rotates: `oilskin keys rotate --if-due` alone, or every replica as well, whichever comes first. Not with keys.signer."
    "keys.max_uses" "OILSKIN_KEY_MAX_USES" Count, "1099511627776" Restart "Messages that one process writes with one key version (1 to 2^48)."
    "keys.max_held" "OILSKIN_KEY_MAX_HELD" Count, "300" Restart "Keysets of tenants held at once (1 to 100,000); the one that was not used for longest goes first. Each needs about 160 bytes of limits.key_slab."
    "keys.idle" "OILSKIN_KEY_IDLE" Duration, "1h" Restart "A tenant's keyset that nobody asks for is let go after that."
    "vault.address" "VAULT_ADDR" Text, "" Restart "Vault or OpenBao: https://NAME:PORT, http://127.0.0.1:PORT, or unix:/path of an agent. Several, separated by commas, are one cluster: the first is asked, the others where it does not answer. Read where something here asks of it, like all of these."
    "vault.namespace" "VAULT_NAMESPACE" Text, "" Restart "Namespace of all that is asked."
    "vault.ca_file" "VAULT_CACERT" Path, "the system's roots" Restart "Authorities (PEM) that its certificate is checked against, alone. Watched."
    "vault.cert_file" "VAULT_CLIENT_CERT" Path, "" Restart "Our own certificate chain (PEM) towards it. Watched."
    "vault.key_file" "VAULT_CLIENT_KEY" Path, "" Restart "Its private key (PEM). Watched."
    "vault.server_name" "VAULT_TLS_SERVER_NAME" Text, "the address' host" Restart "Name that its certificate must carry."
    "vault.standby_reads" "OILSKIN_VAULT_STANDBY_READS" Boolean, "false" Restart "Decrypt fields at the addresses after the first: standbys that serve reads, as OpenBao's do and Vault's performance standbys. The first one is asked where they do not answer, and for all else."
    "vault.cache" "OILSKIN_VAULT_CACHE" Size, "0" Restart "Locked memory for what Vault has decrypted lately (up to a minute, 4 KiB a value; emptied when Vault denies anything); 0 remembers nothing. Who loses the right to decrypt may read on for that minute."
    "vault.auth" "OILSKIN_VAULT_AUTH" OneOf(&["token", "approle", "kubernetes", "jwt", "cert", "aws"]), "token" Restart "How a token is come by: given, or by a login with AppRole, a service account's or another JWT, our certificate, our role in AWS."
    "vault.auth_mount" "OILSKIN_VAULT_AUTH_MOUNT" Text, "the method's name" Restart "Where that method is mounted."
    "vault.token_file" "VAULT_TOKEN_FILE" Path, "" Restart "The token, for `token`. Read again when it changes."
    "vault.role" "OILSKIN_VAULT_ROLE" Text, "" Restart "The role, for `kubernetes` and `jwt`; for `cert` and `aws` where it is not the one that fits."
    "vault.jwt_file" "OILSKIN_VAULT_JWT_FILE" Path, "a pod's own token" Restart "The JWT, for `jwt` and `kubernetes`. Read again at each login."
    "vault.aws_server_id" "OILSKIN_VAULT_AWS_SERVER_ID" Text, "" Restart "What Vault's header X-Vault-AWS-IAM-Server-ID must say, for `aws`, where Vault asks for it."
    "vault.role_id" "OILSKIN_VAULT_ROLE_ID" Text, "" Restart "The role's ID, for `approle`."
    "vault.secret_id_file" "OILSKIN_VAULT_SECRET_ID_FILE" Path, "" Restart "Its secret ID. Read again at each login."
    "routes" "" List, "" Live "Which requests go where, and what happens to them."
    "routes[].name" "" Text, "" Live "Name that logs and metrics use."
    "routes[].match.listener" "" Text, "" Live "The listener's name."
    "routes[].match.path" "" Text, "" Live "Pattern: /customers/{id}, /files/{*rest}."
    "routes[].match.methods" "" List, "all" Live "Methods, in capitals."
    "routes[].match.host" "" Text, "any" Live "Host that the app sends."
    "routes[].upstream" "" Text, "" Live "The upstream's name."
    "routes[].host" "" OneOf(&["keep"]), "" Live "`keep` passes the app's Host instead of the upstream's own."
    "routes[].fields" "" List, "" Live "Rules for both directions."
    "routes[].request.op" "" OPS, "by direction" Live "What request rules do."
    "routes[].request.fields" "" List, "" Live "Rules for requests only."
    "routes[].response.op" "" OPS, "by direction" Live "What response rules do."
    "routes[].response.fields" "" List, "" Live "Rules for responses only."
    "routes[].on_decrypt_error" "" ON_ERROR, "fail" Live "What a token that does not open becomes, for rules that do not say."
    "routes[].opaque" "" List, "" Live "Media types that pass unread although rules stand. Unsafe."
    "routes[].require_inspection" "" Boolean, "false" Live "Refuse answers that no reader can inspect."
    "routes[].tenant" "" Text, "" Live "A literal, or {header: NAME}."
    "routes[].tenant.header" "" Text, "" Live "The request header that names the tenant."
    "routes[].access_log" "" Boolean, "false" Live "Log every request."
    "fields[].select" "" Text, "" Live "JSONPath (RFC 9535) that one forward pass can decide."
    "fields[].each" "" Boolean, "false" Live "Every leaf below a selected container by itself."
    "fields[].name" "" Text, "the selector" Live "Name in errors, logs and metrics."
    "fields[].context" "" List, "the selector's names" Live "Context, or several: writes use the first, reads try each."
    "fields[].keyset" "" Text, "default" Live "Keyset; may hold {tenant} once."
    "fields[].mode" "" OneOf(&["random", "deterministic"]), "random" Live "Deterministic: equal values give equal tokens."
    "fields[].bind" "" Map, "" Live "Named values that a token is bound to, each with its places: @.id, @^.id, $.id, path.id."
    "fields[].bind.*" "" List, "" Live "Places; all that are present must be equal."
    "fields[].pad" "" Count, "" Live "Hide the type and pad to a multiple of this (1 to 65536)."
    "fields[].opaque" "" Boolean, "false" Live "Hide the type: pad 1."
    "fields[].unlinkable" "" Boolean, "false" Live "A fresh nonce for each field."
    "fields[].plaintext" "" OneOf(&["refuse", "accept"]), "refuse" Live "Whether a value that is no token is taken while decrypting."
    "fields[].accept_tokens" "" Boolean, "false" Live "The app may send tokens it read; needs bind."
    "fields[].on_decrypt_error" "" ON_ERROR, "fail" Live "What a token that does not open becomes."
    "fields[].backend" "" Text, "local" Live "What holds the key: `local` (a keyset), or vault:MOUNT/keys/NAME, a derived key of Vault's transit engine, which then encrypts and decrypts."
    "fields[].encrypt" "" Text, "backend" Live "What writes, where it is not what reads: while fields move from one to the other."
    "fields[].decrypt" "" List, "backend" Live "What reads, each what it wrote; `encrypt` must be among them. At most one key of Vault's."
    "fields[].frame" "" OneOf(&["typed", "bare"]), "typed" Live "What stands around a value that Vault encrypts: a mark and its type, or nothing (`bare`: strings only, as other clients of Vault write and read them)."
    "fields[].key_version" "" Count, "the latest" Live "Version of Vault's key that is written with."
    "limits.head" "OILSKIN_LIMITS_HEAD" Size, "16KiB" Restart "Bytes of one head."
    "limits.head_fields" "OILSKIN_LIMITS_HEAD_FIELDS" Count, "100" Restart "Fields of one head."
    "limits.streams" "OILSKIN_LIMITS_STREAMS" Count, "100" Restart "HTTP/2 streams of one connection."
    "limits.connections" "OILSKIN_LIMITS_CONNECTIONS" Count, "10000" Restart "Connections from apps."
    "limits.handshakes" "OILSKIN_LIMITS_HANDSHAKES" Count, "256" Restart "TLS handshakes of one worker's clients in progress."
    "limits.upstream_connections" "OILSKIN_LIMITS_UPSTREAM_CONNECTIONS" Count, "1024" Live "Connections of one worker to one upstream."
    "limits.depth" "OILSKIN_LIMITS_DEPTH" Count, "128" Live "Brackets open at once in JSON."
    "limits.max_body" "OILSKIN_LIMITS_MAX_BODY" Size, "unlimited" Live "Bytes of one body."
    "limits.min_body_rate" "OILSKIN_LIMITS_MIN_BODY_RATE" Size, "100B" Live "Least bytes a second of a request body, after 10 s."
    "limits.max_field" "OILSKIN_LIMITS_MAX_FIELD" Size, "1MiB" Live "Characters of one token, and bytes of one selected value."
    "limits.hold_bytes" "OILSKIN_LIMITS_HOLD_BYTES" Size, "64KiB" Live "Output held before its head is sent."
    "limits.bind_window" "OILSKIN_LIMITS_BIND_WINDOW" Size, "256KiB" Live "What a record may hold back for a bound value."
    "limits.key_slab" "OILSKIN_LIMITS_KEY_SLAB" Size, "48KiB" Restart "Locked memory for keys."
    "timeouts.connect" "OILSKIN_TIMEOUTS_CONNECT" Duration, "2s" Live "Connecting to an upstream."
    "timeouts.head" "OILSKIN_TIMEOUTS_HEAD" Duration, "10s" Live "A request's head."
    "timeouts.handshake" "OILSKIN_TIMEOUTS_HANDSHAKE" Duration, "10s" Live "A client's TLS handshake."
    "timeouts.identity_age" "OILSKIN_TIMEOUTS_IDENTITY_AGE" Duration, "1h" Live "How long a connection outlives a change of our certificate. Whom the new trust refuses is out at once."
    "timeouts.idle" "OILSKIN_TIMEOUTS_IDLE" Duration, "60s" Live "A connection without a request."
    "timeouts.body_idle" "OILSKIN_TIMEOUTS_BODY_IDLE" Duration, "30s" Live "Between two pieces of a body."
    "timeouts.total" "OILSKIN_TIMEOUTS_TOTAL" Duration, "60s" Live "From a request, or the last movement of its body, to the response's head."
    "timeouts.drain" "OILSKIN_DRAIN" Duration, "20s" Restart "What is in work after SIGTERM."
    "timeouts.upstream_age" "OILSKIN_TIMEOUTS_UPSTREAM_AGE" Duration, "10m" Live "Oldest age of an upstream connection."
    "timeouts.pool_wait" "OILSKIN_TIMEOUTS_POOL_WAIT" Duration, "1s" Live "Waiting for a free upstream connection."
    "service.admin" "OILSKIN_ADMIN_LISTEN" Address, "127.0.0.1:16000" Restart "Admin, loopback only; `off` for none."
    "service.metrics" "OILSKIN_METRICS_LISTEN" Address, ":16020" Restart "`/metrics`; `off` for none."
    "service.health" "OILSKIN_HEALTH_LISTEN" Address, ":16021" Restart "`/live`, `/ready`; `off` for none."
    "log.filter" "OILSKIN_LOG" Text, "info" Restart "A level (off, error, warn, info, debug, trace), or levels by module: `info,oilskin=debug`."
    "log.format" "OILSKIN_LOG_FORMAT" OneOf(&["text", "json"]), "text on a terminal" Restart "Form of the log."
    "unsafe_unlocked_keys" "OILSKIN_UNSAFE_UNLOCKED_KEYS" Boolean, "false" Restart "Go on where keys cannot be locked in memory."
};

/// Settings that a later version has; naming them now is told so.
pub(crate) const LATER: &[&str] = &["query", "form", "header", "index"];

/// Whether a variable is one of Kubernetes' service links, which no setting may be named like:
/// `OILSKIN(_[A-Z0-9_]+)?_(SERVICE_HOST|SERVICE_PORT.*|PORT|PORT_[0-9]+_.*)`.
pub(crate) fn is_service_link(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("OILSKIN") else { return false };
    let numbered = |rest: &str| {
        rest.match_indices("_PORT_").any(|(at, found)| {
            let after = rest.get(at + found.len()..).unwrap_or_default();
            let digits = after.bytes().take_while(u8::is_ascii_digit).count();
            digits > 0 && after.as_bytes().get(digits) == Some(&b'_')
        })
    };
    rest.ends_with("_SERVICE_HOST") || rest.contains("_SERVICE_PORT") || rest.ends_with("_PORT") || numbered(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_setting_is_named_like_a_service_link() {
        for name in ENV_ONLY.iter().chain(ROWS).map(|row| row.env) {
            assert!(!is_service_link(name), "{name}");
        }
        for name in [
            "OILSKIN_SERVICE_HOST",
            "OILSKIN_PORT",
            "OILSKIN_A_PORT_80_TCP",
            "OILSKIN_SERVICE_PORT_HTTP",
            "OILSKIN_PORT_80_TCP_ADDR",
        ] {
            assert!(is_service_link(name), "{name}");
        }
        for name in ["OILSKIN_PORTS", "OILSKIN_DRIAN", "OILSKIN_PORT_X_TCP"] {
            assert!(!is_service_link(name), "{name}");
        }
    }
}
