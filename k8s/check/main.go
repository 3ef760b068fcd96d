// Builds kustomize overlays as `kubectl kustomize` does, holds every pod in them against the restricted pod security
// standard, and writes what was built:
//
//	go run . OVERLAY_DIR OUTPUT_FILE [OVERLAY_DIR OUTPUT_FILE…]
//
// What selects pods by labels has to select one that is there: an empty selector means all pods here and none there, and no
// schema objects to either.
//
// The schemas of the API are checked elsewhere (deploy/manifests.sh): this is the part for which no ready program exists.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resource"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

func main() {
	arguments := os.Args[1:]
	if len(arguments) == 0 || len(arguments)%2 != 0 {
		fmt.Fprintln(os.Stderr, "usage: check OVERLAY_DIR OUTPUT_FILE [OVERLAY_DIR OUTPUT_FILE…]")
		os.Exit(2)
	}
	failed := false
	for at := 0; at < len(arguments); at += 2 {
		if err := check(arguments[at], arguments[at+1]); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", arguments[at], err)
			failed = true
		}
	}
	if failed {
		os.Exit(1)
	}
}

func check(overlay, output string) error {
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), overlay)
	if err != nil {
		return err
	}
	yaml, err := built.AsYaml()
	if err != nil {
		return err
	}
	if err := os.WriteFile(output, yaml, 0o644); err != nil {
		return err
	}
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks())
	if err != nil {
		return err
	}
	restricted := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	pods, faults := 0, 0
	var known []labels.Set
	for _, object := range built.Resources() {
		text, err := object.MarshalJSON()
		if err != nil {
			return err
		}
		metadata, spec, err := podOf(object.GetKind(), text)
		if err != nil {
			return fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err)
		}
		if spec == nil {
			continue
		}
		pods++
		known = append(known, metadata.Labels)
		result := policy.AggregateCheckResults(evaluator.EvaluatePod(restricted, metadata, spec))
		if !result.Allowed {
			faults++
			fmt.Fprintf(os.Stderr, "%s %s: %s\n", object.GetKind(), object.GetName(), result.ForbiddenDetail())
		}
	}
	for _, object := range built.Resources() {
		if err := selects(object, known); err != nil {
			return fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
	if faults > 0 || pods == 0 {
		return fmt.Errorf("%d of %d pods don't meet the restricted pod security standard", faults, pods)
	}
	fmt.Printf("%s: %d objects, %d pods meet the restricted pod security standard\n", overlay, built.Size(), pods)
	return nil
}

// Where a kind keeps the selector of its pods.
var selectors = map[string]string{
	"Service":             "spec.selector",
	"Deployment":          "spec.selector.matchLabels",
	"PodDisruptionBudget": "spec.selector.matchLabels",
	"NetworkPolicy":       "spec.podSelector.matchLabels",
}

func selects(object *resource.Resource, pods []labels.Set) error {
	path, ok := selectors[object.GetKind()]
	if !ok {
		return nil
	}
	found, err := object.GetFieldValue(path)
	if err != nil {
		return fmt.Errorf("has no %s", path)
	}
	wanted := labels.Set{}
	for name, value := range found.(map[string]interface{}) {
		wanted[name] = fmt.Sprint(value)
	}
	for _, pod := range pods {
		if len(wanted) > 0 && wanted.AsSelector().Matches(pod) {
			return nil
		}
	}
	return fmt.Errorf("%s selects no pod of this overlay: %v", path, wanted)
}

// podOf finds the pod in a pod or in what makes pods; nil for other kinds.
func podOf(kind string, text []byte) (*metav1.ObjectMeta, *corev1.PodSpec, error) {
	switch kind {
	case "Pod":
		var pod corev1.Pod
		err := json.Unmarshal(text, &pod)
		return &pod.ObjectMeta, &pod.Spec, err
	case "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job":
		var maker struct {
			Spec struct {
				Template corev1.PodTemplateSpec `json:"template"`
			} `json:"spec"`
		}
		err := json.Unmarshal(text, &maker)
		return &maker.Spec.Template.ObjectMeta, &maker.Spec.Template.Spec, err
	case "CronJob":
		return nil, nil, fmt.Errorf("this check doesn't look into a CronJob yet")
	default:
		return nil, nil, nil
	}
}
