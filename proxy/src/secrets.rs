//! Files with secrets that are read when they are needed: whether they are there now, and who else may read them.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use oilskin_config::{Config, Root, Secreted, VaultLogin};
use zeroize::Zeroizing;

use crate::tls;

/// What is worth a warning about the files that `config` names: of PINs, passphrases and what Vault is logged in with.
pub(crate) fn warnings(config: &Config) -> Vec<String> {
    let mut files: Vec<&Path> = Vec::new();
    if let Some(keys) = &config.keys {
        files.extend(keys.roots.iter().filter_map(|root| match root {
            Root::Pkcs11(key) => Some(key.pin.as_path()),
            _ => None,
        }));
        files.extend(keys.passphrase.as_ref().and_then(file));
    }
    files.extend(config.vault.iter().filter_map(|vault| match &vault.login {
        VaultLogin::Token(secret) | VaultLogin::AppRole { secret_id: secret, .. } => file(secret),
        VaultLogin::Jwt { file, .. } => Some(file.as_path()),
        VaultLogin::Cert { .. } | VaultLogin::Aws { .. } => None,
    }));
    files.into_iter().filter_map(warning).collect()
}

fn file(secreted: &Secreted) -> Option<&Path> {
    match secreted {
        Secreted::File(path) => Some(path),
        Secreted::Here(_) => None,
    }
}

fn warning(path: &Path) -> Option<String> {
    if let Err(refused) = tls::read(path).map(Zeroizing::new) {
        return Some(format!("{}, and a secret is to be read from it", refused.text));
    }
    // The kubelet gives a volume's files to all of a pod, which is nobody else; its link tells them.
    let is_mounted = path.parent().is_some_and(|parent| parent.join("..data").is_symlink());
    let mode = std::fs::metadata(path).ok()?.mode() & 0o777;
    (mode & 0o007 != 0 && !is_mounted).then(|| {
        format!("{}: a secret, and everyone on this machine may read it (mode {mode:o}): chmod 600", path.display())
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::warning;

    #[test]
    fn a_secret_s_file_is_to_be_there_and_closed_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pin");
        let said = || warning(&path).unwrap_or_default();
        assert!(said().contains("No such file"), "{}", said());
        fs::write(&path, "1234").unwrap();
        for (mode, warned) in [(0o600, false), (0o640, false), (0o644, true), (0o606, true)] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(said().contains("chmod 600"), warned, "{mode:o}: {}", said());
            assert!(!said().contains("1234"));
        }
        symlink("..1", folder.path().join("..data")).unwrap();
        assert_eq!(said(), "", "a volume of Kubernetes");
    }
}
