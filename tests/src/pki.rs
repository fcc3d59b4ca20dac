//! The keys of one lab: a certificate authority, the API server's certificate, the key ServiceAccount tokens are signed
//! with, and the certificate by which the API server is known to kubelets. People and components authenticate with tokens.

use std::path::Path;

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

/// Writes `ca.crt`, `apiserver.crt`, `apiserver.key`, `kubelet-client.crt`, `kubelet-client.key`, `sa.key` and `sa.pub` into `dir`; `names` are the API server's.
pub(crate) fn write(dir: &Path, names: &[&str]) -> Result<()> {
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "herald lab");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;

    let key = KeyPair::generate()?;
    let mut server = CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())?;
    server.distinguished_name.push(DnType::CommonName, "kube-apiserver");
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server.use_authority_key_identifier_extension = true;
    let server = server.signed_by(&key, &authority)?;

    std::fs::write(dir.join("ca.crt"), authority.pem())?;
    std::fs::write(dir.join("apiserver.crt"), server.pem())?;
    std::fs::write(dir.join("apiserver.key"), key.serialize_pem())?;
    let key = KeyPair::generate()?;
    let mut client = CertificateParams::default();
    client.distinguished_name.push(DnType::CommonName, "kube-apiserver-kubelet-client");
    client.distinguished_name.push(DnType::OrganizationName, "system:masters");
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    client.use_authority_key_identifier_extension = true;
    let client = client.signed_by(&key, &authority)?;
    std::fs::write(dir.join("kubelet-client.crt"), client.pem())?;
    std::fs::write(dir.join("kubelet-client.key"), key.serialize_pem())?;

    let tokens = KeyPair::generate()?;
    std::fs::write(dir.join("sa.key"), tokens.serialize_pem())?;
    std::fs::write(dir.join("sa.pub"), tokens.public_key_pem())?;
    Ok(())
}
