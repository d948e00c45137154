# shellcheck shell=bash
# Certificates and kubeconfigs: one cluster CA, one CA for aggregated APIs. They outlive any
# cluster.

new_key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }

new_ca() {
    new_key "$PKI/$1.key"
    openssl req -x509 -new -key "$PKI/$1.key" -subj "/CN=ground-$1" -days 3650 \
        -addext 'keyUsage=critical,keyCertSign,cRLSign' -out "$PKI/$1.crt"
}

# new_cert CA NAME SUBJECT USAGE [SUBJECT_ALT_NAMES]
new_cert() {
    local ca=$1 name=$2 subject=$3 usage=$4 names=${5:-}
    new_key "$PKI/$name.key"
    {
        echo "extendedKeyUsage=$usage"
        echo 'keyUsage=critical,digitalSignature'
        [[ -z $names ]] || echo "subjectAltName=$names"
    } >"$PKI/$name.ext"
    openssl req -new -key "$PKI/$name.key" -subj "$subject" |
        openssl x509 -req -CA "$PKI/$ca.crt" -CAkey "$PKI/$ca.key" -CAcreateserial \
            -days 3650 -extfile "$PKI/$name.ext" -out "$PKI/$name.crt" 2>/dev/null
    rm "$PKI/$name.ext"
}

# new_kubeconfig FILE CERT_NAME
new_kubeconfig() {
    (
        umask 077
        cat >"$1" <<YAML
apiVersion: v1
kind: Config
current-context: ground
clusters:
- name: ground
  cluster:
    server: https://$API_HOST:$PORT_API
    certificate-authority-data: $(base64 -w0 "$PKI/ca.crt")
users:
- name: $2
  user:
    client-certificate-data: $(base64 -w0 "$PKI/$2.crt")
    client-key-data: $(base64 -w0 "$PKI/$2.key")
contexts:
- name: ground
  context: {cluster: ground, user: $2}
YAML
    )
}

# new_pki [SUBJECT_ALT_NAME...]: of the API server, beside API_HOST and its Service.
new_pki() {
    local names=IP:127.0.0.1,DNS:localhost,IP:$API_HOST,IP:$API_SERVICE_IP name
    for name in kubernetes{,.default{,.svc{,.cluster.local}}}; do names+=,DNS:$name; done
    for name; do names+=,$name; done
    mkdir -m 700 "$PKI"
    new_ca ca
    new_ca front-proxy-ca
    new_key "$PKI/service-account.key"
    openssl ec -in "$PKI/service-account.key" -pubout -out "$PKI/service-account.pub" 2>/dev/null
    new_cert ca apiserver /CN=kube-apiserver serverAuth "$names"
    new_cert ca apiserver-kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client clientAuth
    new_cert front-proxy-ca front-proxy-client /CN=front-proxy-client clientAuth
    new_cert ca admin /O=system:masters/CN=admin clientAuth
    new_cert ca controllers /CN=system:kube-controller-manager clientAuth
    new_cert ca scheduler /CN=system:kube-scheduler clientAuth
    new_kubeconfig "$KUBECONFIG" admin
    new_kubeconfig "$PKI/controllers.kubeconfig" controllers
    new_kubeconfig "$PKI/scheduler.kubeconfig" scheduler
}
