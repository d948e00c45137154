# shellcheck shell=bash
# Java programs as Maven packages them: a folder of jars for a class path.

MAVEN_PLUGIN=3.8.1

packages_java() { packages java=default-jdk-headless javac=default-jdk-headless mvn=maven; }

# fetch_jars FOLDER GROUP:ARTIFACT:VERSION...: each with all it depends on.
fetch_jars() {
    local folder=$1 pom group artifact version coordinates
    shift
    pom=$folder/pom.xml
    {
        echo '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        echo '<groupId>ground</groupId><artifactId>ground</artifactId><version>1</version><packaging>pom</packaging>'
        echo '<dependencies>'
        for coordinates; do
            IFS=: read -r group artifact version <<<"$coordinates"
            echo "<dependency><groupId>$group</groupId><artifactId>$artifact</artifactId><version>$version</version></dependency>"
        done
        echo '</dependencies></project>'
    } >"$pom"
    mvn -q -B -Dstyle.color=never -f "$pom" \
        "org.apache.maven.plugins:maven-dependency-plugin:$MAVEN_PLUGIN:copy-dependencies" \
        -DincludeScope=runtime -DoutputDirectory="$folder" >&2
    rm "$pom"
}
