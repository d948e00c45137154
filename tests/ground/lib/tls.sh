# shellcheck shell=bash
# Certificates for a system on 127.0.0.1, good for a month.

# certificates FOLDER: makes it, with an authority (ca.crt), and what it signed: a server's server.crt and
# server.key, and client.crt and client.key of whoever calls itself app.
certificates() {
    local dir=$1
    mkdir -m 700 "$dir"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=ground-ca \
        -keyout "$dir/ca.key" -out "$dir/ca.crt" 2>/dev/null
    signed "$dir" server /CN=localhost 'subjectAltName=DNS:localhost,IP:127.0.0.1'
    signed "$dir" client /CN=app extendedKeyUsage=clientAuth
}

# signed FOLDER NAME SUBJECT EXTENSION
signed() {
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "$3" \
        -keyout "$1/$2.key" -out "$1/$2.csr" 2>/dev/null
    openssl x509 -req -in "$1/$2.csr" -CA "$1/ca.crt" -CAkey "$1/ca.key" -CAcreateserial -days 30 \
        -extfile <(echo "$4") -out "$1/$2.crt" 2>/dev/null
}
