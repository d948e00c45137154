// Command tiltfile evaluates a Tiltfile with stubs of Tilt's functions and checks what it asks for: `tiltfile
// FOLDER` reads FOLDER/Tiltfile. Tilt itself is not needed. It fails on an argument that Tilt does not know, a
// path or program that is not there, a resource that nobody defines, and a chart that helm (when it is on the
// PATH) cannot render.
package main

import (
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"
	"go.starlark.net/syntax"
)

// Arguments by function, as https://docs.tilt.dev/api.html names them; `?` marks what may be left out.
var arguments = map[string][]string{
	"allow_k8s_contexts": {"contexts"},
	"blob":               {"text"},
	"helm":               {"pathToChartDir", "name?", "namespace?", "values?", "set?", "kube_version?", "skip_crds?"},
	"k8s_resource": {"workload?", "new_name?", "port_forwards?", "extra_pod_selectors?", "trigger_mode?", "resource_deps?",
		"objects?", "auto_init?", "pod_readiness?", "links?", "labels?", "discovery_strategy?"},
	"k8s_yaml": {"yaml", "allow_duplicates?"},
	"local_resource": {"name", "cmd?", "deps?", "trigger_mode?", "auto_init?", "ignore?", "resource_deps?", "serve_cmd?",
		"allow_parallel?", "links?", "env?", "serve_env?", "readiness_probe?", "labels?", "dir?", "serve_dir?"},
	"update_settings":      {"max_parallel_updates?", "k8s_upsert_timeout_secs?", "suppress_unused_image_warnings?"},
	"config.define_string": {"name", "args?", "usage?"},
	"config.parse":         {},
}

type call map[string]starlark.Value

type evaluation struct {
	folder    string
	settings  []string
	resources []string
	wanted    []string
	objects   []string
	contexts  int
	yaml      string
	rendered  bool
	problems  []string
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: tiltfile FOLDER")
	}
	e := &evaluation{folder: os.Args[1], rendered: true}
	predeclared := starlark.StringDict{
		"blob":               e.builtin("blob", func(given call) (starlark.Value, error) { return given["text"], nil }),
		"allow_k8s_contexts": e.builtin("allow_k8s_contexts", e.allowContexts),
		"helm":               e.builtin("helm", e.helm),
		"k8s_resource":       e.builtin("k8s_resource", e.k8sResource),
		"k8s_yaml":           e.builtin("k8s_yaml", e.k8sYaml),
		"local_resource":     e.builtin("local_resource", e.localResource),
		"update_settings":    e.builtin("update_settings", nothing),
		"config": starlarkstruct.FromStringDict(starlark.String("config"), starlark.StringDict{
			"define_string": e.builtin("config.define_string", e.defineString),
			"parse":         e.builtin("config.parse", func(call) (starlark.Value, error) { return new(starlark.Dict), nil }),
		}),
	}
	thread := &starlark.Thread{Name: "Tiltfile", Print: func(_ *starlark.Thread, text string) { fmt.Println(text) }}
	// Tilt allows statements and reassignment at the top level.
	options := &syntax.FileOptions{TopLevelControl: true, GlobalReassign: true, While: false, Set: true}
	if _, err := starlark.ExecFileOptions(options, thread, filepath.Join(e.folder, "Tiltfile"), nil, predeclared); err != nil {
		if failure, ok := err.(*starlark.EvalError); ok {
			log.Fatal(failure.Backtrace())
		}
		log.Fatal(err)
	}
	e.finish()
}

func (e *evaluation) finish() {
	for _, name := range e.wanted {
		if !slices.Contains(e.resources, name) {
			e.problem("resource_deps names %q, which nobody defines", name)
		}
	}
	for _, name := range e.objects {
		if e.rendered && !strings.Contains(e.yaml, "name: "+name+"\n") {
			e.problem("k8s_resource names %q, which no YAML holds", name)
		}
	}
	if e.contexts == 0 {
		e.problem("allow_k8s_contexts is not called: Tilt would refuse our own cluster")
	}
	for _, problem := range e.problems {
		fmt.Println(problem)
	}
	fmt.Printf("%d resources: %s\n", len(e.resources), strings.Join(e.resources, ", "))
	if len(e.problems) > 0 || len(e.resources) == 0 {
		os.Exit(1)
	}
}

func (e *evaluation) problem(format string, values ...any) {
	e.problems = append(e.problems, fmt.Sprintf(format, values...))
}

// builtin makes a function of Tilt's that refuses arguments Tilt does not know.
func (e *evaluation) builtin(name string, do func(call) (starlark.Value, error)) *starlark.Builtin {
	return starlark.NewBuiltin(name, func(_ *starlark.Thread, fn *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		values := make([]starlark.Value, len(arguments[name]))
		var pairs []any
		for i, argument := range arguments[name] {
			pairs = append(pairs, argument, &values[i])
		}
		if err := starlark.UnpackArgs(name, args, kwargs, pairs...); err != nil {
			return nil, err
		}
		given := call{}
		for i, argument := range arguments[name] {
			if values[i] != nil {
				given[strings.TrimSuffix(argument, "?")] = values[i]
			}
		}
		return do(given)
	})
}

func nothing(call) (starlark.Value, error) { return starlark.None, nil }

// texts is an argument that is a string or a list of strings.
func (c call) texts(name string) []string {
	var texts []string
	switch value := c[name].(type) {
	case starlark.String:
		texts = append(texts, string(value))
	case starlark.Iterable:
		items := value.Iterate()
		defer items.Done()
		var item starlark.Value
		for items.Next(&item) {
			text, _ := starlark.AsString(item)
			texts = append(texts, text)
		}
	}
	return texts
}

func (c call) text(name string) string { return strings.Join(c.texts(name), " ") }

func (e *evaluation) allowContexts(given call) (starlark.Value, error) {
	e.contexts += len(given.texts("contexts"))
	return starlark.None, nil
}

func (e *evaluation) defineString(given call) (starlark.Value, error) {
	e.settings = append(e.settings, given.text("name"))
	return starlark.None, nil
}

func (e *evaluation) localResource(given call) (starlark.Value, error) {
	name := given.text("name")
	e.resources = append(e.resources, name)
	e.wanted = append(e.wanted, given.texts("resource_deps")...)
	for _, path := range given.texts("deps") {
		if _, err := os.Stat(filepath.Join(e.folder, path)); err != nil {
			e.problem("%s depends on %s, which is not there", name, path)
		}
	}
	for _, key := range []string{"cmd", "serve_cmd"} {
		words := strings.Fields(given.text(key))
		if len(words) == 0 {
			continue
		}
		program := words[0]
		if strings.Contains(program, "/") {
			program = filepath.Join(e.folder, program)
		}
		if _, err := exec.LookPath(program); err != nil {
			e.problem("%s runs %s, which is no program", name, words[0])
		}
	}
	return starlark.None, nil
}

func (e *evaluation) k8sYaml(given call) (starlark.Value, error) {
	e.yaml += given.text("yaml") + "\n"
	return starlark.None, nil
}

func (e *evaluation) k8sResource(given call) (starlark.Value, error) {
	name := given.text("new_name")
	if workload := given.text("workload"); workload != "" {
		e.objects = append(e.objects, workload)
		name = workload
	}
	for _, object := range given.texts("objects") {
		e.objects = append(e.objects, strings.Split(object, ":")[0])
	}
	e.resources = append(e.resources, name)
	e.wanted = append(e.wanted, given.texts("resource_deps")...)
	return starlark.None, nil
}

func (e *evaluation) helm(given call) (starlark.Value, error) {
	chart := filepath.Join(e.folder, given.text("pathToChartDir"))
	if _, err := os.Stat(filepath.Join(chart, "Chart.yaml")); err != nil {
		e.problem("%s is no chart", given.text("pathToChartDir"))
		return starlark.String(""), nil
	}
	helm, err := exec.LookPath("helm")
	if err != nil {
		e.rendered = false
		fmt.Printf("helm is not on the PATH: %s is not rendered\n", given.text("pathToChartDir"))
		return starlark.String(""), nil
	}
	command := []string{"template", given.text("name"), chart, "--namespace", given.text("namespace"), "--kube-version", "1.34"}
	for _, value := range given.texts("set") {
		command = append(command, "--set", value)
	}
	for _, file := range given.texts("values") {
		command = append(command, "--values", filepath.Join(e.folder, file))
	}
	out, err := exec.Command(helm, command...).CombinedOutput()
	if err != nil {
		e.problem("helm %s: %s", strings.Join(command, " "), out)
	}
	return starlark.String(out), nil
}
