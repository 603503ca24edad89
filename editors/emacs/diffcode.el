;;; diffcode.el --- Code filled in by a diffusion model  -*- lexical-binding: t; -*-

;; Package-Requires: ((emacs "28.1") (eglot "1.9"))
;; Keywords: convenience, languages
;; SPDX-License-Identifier: Apache-2.0

;;; Commentary:

;; `diffcode lsp' by Eglot: ghost text, and commands for holes, selections and what follows an edit.
;;
;;   (require 'diffcode)
;;   (diffcode-use 'python-mode)     ; then M-x eglot in a file, or `eglot-ensure' in the mode's hook
;;
;; Eglot has one server for a buffer: this one takes the place of another for those modes.

;;; Code:

(require 'cl-lib)
(require 'eglot)

(defgroup diffcode nil "Code filled in by a diffusion model." :group 'tools)

(defcustom diffcode-command '("diffcode" "lsp")
  "How to start the server.  More than strings: see `eglot-server-programs'."
  :type '(repeat sexp))

(defcustom diffcode-ghost-text t
  "Whether suggestions are drawn at point.  If nil they are items of completion.
The server is told when it starts."
  :type 'boolean)

(defface diffcode-ghost '((t :inherit shadow :slant italic)) "What is suggested and not there.")

;;; The server

(defclass diffcode-server (eglot-lsp-server)
  ((status :initform '(:state "normal") :accessor diffcode--status))
  :documentation "`diffcode lsp'.")

;;;###autoload
(defun diffcode-use (&rest modes)
  "Have Eglot start diffcode in major MODES."
  (add-to-list 'eglot-server-programs `(,modes . (diffcode-server ,@diffcode-command))))

(cl-defmethod eglot-client-capabilities :around ((_server diffcode-server))
  "Also that the status is wanted, and ghost text."
  (let* ((all (cl-call-next-method)) (document (plist-get all :textDocument)))
    (when diffcode-ghost-text
      (setq document (append document '(:inlineCompletion (:dynamicRegistration :json-false)))))
    (plist-put (plist-put all :textDocument document) :experimental '(:diffcodeStatus t))))

(cl-defmethod eglot-handle-notification
  ((server diffcode-server) (_method (eql 'diffcode/status)) &rest status)
  "What the server is about."
  (setf (diffcode--status server) status)
  (force-mode-line-update t))

(defvar eglot-confirm-server-initiated-edits)

(cl-defmethod eglot-handle-request :around
  ((_server diffcode-server) (_method (eql 'workspace/applyEdit)) &rest _params)
  "An edit was asked for by a command: no further question.  Eglot 1.9 asks, and answers with its message."
  (let ((eglot-confirm-server-initiated-edits nil))
    (cl-call-next-method)
    '(:applied t)))

(defun diffcode--server ()
  "The server of this buffer, if it is ours."
  (let ((server (eglot-current-server)))
    (and (cl-typep server 'diffcode-server) server)))

(defun diffcode--lighter ()
  "For the mode line."
  (let ((server (diffcode--server)))
    (pcase (and server (plist-get (diffcode--status server) :state))
      ("busy" " diffcode…") ("inactive" " diffcode(off)") ("error" " diffcode(!)") (_ " diffcode"))))

;;; Commands

(defun diffcode--execute (name argument &optional done)
  "Have the server do command NAME with plist ARGUMENT, as one step of undo.
DONE is called with its answer."
  (let ((server (or (diffcode--server) (user-error "No diffcode here: start it with M-x eglot")))
        (buffer (current-buffer))
        (id (eglot--TextDocumentIdentifier)))
    (undo-boundary)
    (eglot--signal-textDocument/didChange)
    (jsonrpc-async-request
     server :workspace/executeCommand
     (list :command (concat "diffcode." name) :arguments (if argument (vector (append id argument)) []))
     :timeout 600
     :success-fn (lambda (answer)
                   (when (buffer-live-p buffer) (with-current-buffer buffer (undo-boundary)))
                   (if done (funcall done answer)
                     (when-let ((why (plist-get answer :failureReason))) (message "diffcode: %s" why))))
     :error-fn (lambda (failed) (message "diffcode: %s" (plist-get failed :message)))
     :timeout-fn #'ignore)))

(defun diffcode--place (&optional line)
  "The active region, else point, or with LINE its line; as an argument."
  (if (not (or line (use-region-p)))
      (list :position (eglot--pos-to-lsp-position))
    (let ((from (if (use-region-p) (region-beginning) (line-beginning-position)))
          (to (if (use-region-p) (region-end) (line-end-position))))
      (list :range (list :start (eglot--pos-to-lsp-position from) :end (eglot--pos-to-lsp-position to))))))

(defun diffcode-fill (all)
  "Fill the hole on this line, or those in the region; with a prefix ALL of the file."
  (interactive "P")
  (diffcode--execute "fill" (if all '(:seed 0) (diffcode--place))))

(defun diffcode-rewrite ()
  "Write the region, or this line, anew."
  (interactive)
  (diffcode--execute "rewrite" (diffcode--place t)))

(defvar diffcode--seed 0)

(defun diffcode-vary (&optional percent)
  "Write a share of the region's tokens anew, or of this line's.
PERCENT is the prefix; without one it is as the settings say."
  (interactive "P")
  (cl-incf diffcode--seed 10)
  (let ((strength (and percent (list :strength (/ (min 100 (max 1 (prefix-numeric-value percent))) 100.0)))))
    (diffcode--execute "vary" (append (diffcode--place t) strength (list :seed diffcode--seed)))))

(defun diffcode-repair ()
  "Repair the code at point or in the region."
  (interactive)
  (diffcode--execute "repair" (diffcode--place)))

(defun diffcode-ripple ()
  "Change the places that must follow the last edits."
  (interactive)
  (diffcode--execute "ripple" '(:seed 0)))

(defun diffcode--tell (answer)
  "Show ANSWER, the server's counts."
  (message "diffcode: %s" (mapconcat (lambda (it) (format "%s" it)) answer " ")))

(defun diffcode-status ()
  "How the server does."
  (interactive)
  (diffcode--execute "status" nil #'diffcode--tell))

(defun diffcode-reload ()
  "Load the model again."
  (interactive)
  (diffcode--execute "reload" nil #'diffcode--tell))

;;; Ghost text

(defvar-local diffcode--ghost nil "The overlay that draws a suggestion, if one is shown.")
(defvar-local diffcode--seen nil "Tick and point after the last command.")

(defvar diffcode-ghost-map
  (let ((map (make-sparse-keymap)))
    (define-key map (kbd "TAB") #'diffcode-accept)
    (define-key map (kbd "<tab>") #'diffcode-accept)
    (define-key map (kbd "M-<right>") #'diffcode-accept-word)
    (define-key map (kbd "C-g") #'diffcode-dismiss)
    map)
  "Keys while a suggestion is shown.")

(defun diffcode--now () (list (buffer-chars-modified-tick) (point)))

(defun diffcode--tail () (buffer-substring-no-properties (point) (line-end-position)))

(defun diffcode--hide ()
  (when diffcode--ghost (delete-overlay diffcode--ghost))
  (setq diffcode--ghost nil))

(defun diffcode--show (text gone)
  "Draw TEXT at point; accepting it takes GONE characters behind point away."
  (diffcode--hide)
  (let ((ghost (make-overlay (point) (+ (point) gone)))
        (drawn (propertize text 'face 'diffcode-ghost)))
    (put-text-property 0 1 'cursor t drawn)
    (overlay-put ghost (if (> gone 0) 'display 'after-string) drawn)
    (overlay-put ghost 'diffcode (list text gone (point) (diffcode--tail)))
    (setq diffcode--ghost ghost)))

(defun diffcode--follow ()
  "Whether what was typed is the beginning of what is shown, which then shrinks."
  (when diffcode--ghost
    (pcase-let* ((`(,text ,gone ,from ,tail) (overlay-get diffcode--ghost 'diffcode))
                 (typed (and (>= (point) from) (buffer-substring-no-properties from (point)))))
      (when (and typed (string-prefix-p typed text) (not (equal typed text)) (equal tail (diffcode--tail)))
        (diffcode--show (substring text (length typed)) gone)
        t))))

(defun diffcode--why (server)
  "Who asked SERVER by hand is told why there is nothing."
  (jsonrpc-async-request
   server :workspace/executeCommand '(:command "diffcode.status")
   :success-fn (lambda (figures)
                 (when-let ((why (plist-get figures :silence))) (message "diffcode: nothing to suggest: %s" why)))
   :error-fn #'ignore :timeout-fn #'ignore))

(defun diffcode--ask (kind)
  "Ask for a suggestion at point; KIND is 1 by hand, 2 otherwise.
An answer for another text or place is dropped."
  (let ((server (diffcode--server)) (buffer (current-buffer)) (now (diffcode--now)))
    (eglot--signal-textDocument/didChange)
    (jsonrpc-async-request
     server :textDocument/inlineCompletion
     (append (eglot--TextDocumentPositionParams) `(:context (:triggerKind ,kind)))
     :success-fn
     (lambda (answer)
       (let ((items (if (vectorp answer) answer (plist-get answer :items))))
         (when (and (= kind 1) (= (length items) 0)) (diffcode--why server))
         (when (and (buffer-live-p buffer) (> (length items) 0))
           (with-current-buffer buffer
             (when (equal now (diffcode--now))
               (let ((end (plist-get (plist-get (aref items 0) :range) :end)))
                 (diffcode--show (plist-get (aref items 0) :insertText)
                                 (max 0 (- (eglot--lsp-position-to-point end) (point))))))))))
     :error-fn #'ignore :timeout-fn #'ignore)))

(defun diffcode--moved ()
  "Tell where point is now: if it rests, the server reads what stands there."
  (when-let ((server (diffcode--server)))
    (eglot--signal-textDocument/didChange) ; Eglot may have kept the last change back
    (jsonrpc-notify server :diffcode/cursor (eglot--TextDocumentPositionParams))))

(defun diffcode--after-command ()
  (let ((before diffcode--seen) (now (diffcode--now)))
    (setq diffcode--seen now)
    (unless (or (equal before now) (diffcode--follow))
      (diffcode--hide)
      (cond ((not before))
            ((equal (car before) (car now)) (diffcode--moved))
            ((not (memq this-command '(undo undo-only undo-redo))) (diffcode--ask 2))))))

(defun diffcode-suggest ()
  "Ask for a suggestion."
  (interactive)
  (diffcode--ask 1))

(defun diffcode-dismiss ()
  "Hide the suggestion."
  (interactive)
  (diffcode--hide))

(defun diffcode-accept (&optional word)
  "Take the suggestion, or its next WORD, as one step of undo."
  (interactive)
  (pcase-let* ((`(,text ,gone . ,_) (overlay-get diffcode--ghost 'diffcode))
               (part (if (and word (string-match "\\`[[:space:]\n]*\\(?:[[:alnum:]_]+\\|.\\)" text))
                         (match-string 0 text) text)))
    (undo-boundary)
    (insert part) ; of a part the rest follows, by `diffcode--follow'
    (when (equal part text) (delete-char gone))
    (undo-boundary)))

(defun diffcode-accept-word ()
  "Take the next word of the suggestion."
  (interactive)
  (diffcode-accept t))

(define-minor-mode diffcode-mode
  "Ghost text while typing."
  :lighter (:eval (diffcode--lighter))
  (diffcode--hide)
  (if diffcode-mode
      (add-hook 'post-command-hook #'diffcode--after-command nil t)
    (remove-hook 'post-command-hook #'diffcode--after-command t)))

(add-to-list 'minor-mode-map-alist (cons 'diffcode--ghost diffcode-ghost-map))

(defun diffcode--managed ()
  "Begin and end with Eglot."
  (let ((on (and diffcode-ghost-text (eglot-managed-p) (diffcode--server) t)))
    (unless (eq on diffcode-mode) (diffcode-mode (if on 1 -1)))))

(add-hook 'eglot-managed-mode-hook #'diffcode--managed)

(provide 'diffcode)
;;; diffcode.el ends here
