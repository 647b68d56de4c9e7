// asynq: functions of Go, in goroutines of one process that uses all cores.
//
// Concurrency: https://redis.io/docs/latest/integrate/asynq/
// Results: https://pkg.go.dev/github.com/hibiken/asynq#Task.ResultWriter, kept for the task's Retention.
package main

import (
	"context"
	"encoding/json"
	"log"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/hibiken/asynq"
)

const retention = time.Hour

func numbers() []byte { return []byte("[1,2,3]") }

func sum(_ context.Context, task *asynq.Task) error {
	var values []int
	if err := json.Unmarshal(task.Payload(), &values); err != nil {
		return err
	}
	total := 0
	for _, value := range values {
		total += value
	}
	_, err := task.ResultWriter().Write([]byte(strconv.Itoa(total)))
	return err
}

func slow(ctx context.Context, task *asynq.Task) error {
	file, err := os.OpenFile(os.Getenv("PEER_STARTED"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	file.WriteString("started\n")
	file.Close()
	time.Sleep(3 * time.Second)
	return sum(ctx, task)
}

func work(options asynq.RedisConnOpt, concurrency int) {
	mux := asynq.NewServeMux()
	mux.HandleFunc("function", sum)
	mux.HandleFunc("slow", slow)
	server := asynq.NewServer(options, asynq.Config{Concurrency: concurrency, LogLevel: asynq.ErrorLevel})
	if err := server.Run(mux); err != nil {
		log.Fatal(err)
	}
}

func push(client *asynq.Client, name string, count int) {
	var pushing sync.WaitGroup
	for part := 0; part < 50; part++ {
		pushing.Add(1)
		go func(count int) {
			defer pushing.Done()
			for ; count > 0; count-- {
				if _, err := client.Enqueue(asynq.NewTask(name, numbers()), asynq.Retention(retention)); err != nil {
					log.Fatal(err)
				}
			}
		}(count*(part+1)/50 - count*part/50)
	}
	pushing.Wait()
}

func ask(options asynq.RedisConnOpt, client *asynq.Client, name string) {
	info, err := client.Enqueue(asynq.NewTask(name, numbers()), asynq.Retention(retention))
	if err != nil {
		log.Fatal(err)
	}
	inspector := asynq.NewInspector(options)
	for range 600 {
		if found, err := inspector.GetTaskInfo(info.Queue, info.ID); err == nil && len(found.Result) > 0 {
			if string(found.Result) != "6" {
				log.Fatalf("the result is %s", found.Result)
			}
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	log.Fatal("no result")
}

func main() {
	options, err := asynq.ParseRedisURI(os.Getenv("PEER_URL"))
	if err != nil {
		log.Fatal(err)
	}
	verb, name := os.Args[1], os.Args[2]
	number, err := strconv.Atoi(os.Args[3])
	if err != nil {
		log.Fatal(err)
	}
	if verb == "work" {
		work(options, number)
		return
	}
	client := asynq.NewClient(options)
	defer client.Close()
	if verb == "push" {
		push(client, name, number)
	} else {
		ask(options, client, name)
	}
}
